# SPDX-License-Identifier: BSD-3-Clause
"""The package as people install it: built, put elsewhere, and used in an empty folder."""

import csv
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.support.small_run import ROOT

TINY = [
    "--config.total_steps=2", "--config.image_size=16", "--config.batch_size=8",
    "--config.group_size=8", "--config.model.stage_sizes=(1,)",
    "--config.model.stage_widths=(16,)", "--config.model.stem_width=8",
    "--config.evaluation.batch_size=64",
]  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy: a build leaves folders behind
    names = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(names, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    for name in listed.stdout.splitlines():
        if name.startswith(("tests/", "docs/", "benchmarks/")) or not (ROOT / name).is_file():
            continue
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", folder, source], check=True)
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def run(wheel, tmp_path_factory):
    """Runs the installed command in an empty folder."""
    site = tmp_path_factory.mktemp("site")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site]
    subprocess.run([*install, wheel], check=True)
    folder = tmp_path_factory.mktemp("empty")
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment |= {"PYTHONPATH": str(site), "JAX_PLATFORMS": "cpu"}

    def run(*words):
        command = [sys.executable, site / "bin/mlimages", *words]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True
        )  # fmt: skip
        assert not done.returncode, done.stderr
        return done.stdout

    run.folder = folder
    return run


@pytest.mark.slow
def test_all_that_is_needed_is_inside(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for path in (*ROOT.glob("configs/*.py"), *ROOT.glob("launch/*"), *ROOT.glob("launch/gke/*")):
        if path.is_file():
            assert f"mlimages_jax/{path.relative_to(ROOT)}" in names
    for name in (
        "mlimages_jax/inference/pages/tag_sheet.html",
        "mlimages_jax/inference/pages/tags.css",
        "mlimages_jax/inference/pages/tags.js",
        "mlimages_jax/labels/corrections.tsv",
        "mlimages_jax/report/page.css",
        "mlimages_jax/report/page.html.jinja",
        "mlimages_jax/report/page.js",
        "mlimages_jax/serving/page.html",
        "tfds_builders/ml_images/README.md",
    ):
        assert name in names
    assert {"mlimages_jax/py.typed", "tfds_builders/py.typed"} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "configs", "launch"))]


@pytest.mark.slow
def test_it_says_what_it_can_do(run):
    assert "• train" in run("--help")
    assert "• image-folder" in run("data", "build", "--help")
    assert "total_steps" in run("train", "--config=configs/pretrain.py", "--config.help")
    assert "fits" in run("plan", "--config=pretrain:paper", "--devices=64", "--chip=h100")
    words = ["--hosts=a,b", "--", "--config=pretrain"]
    assert "ssh" in run("launch", "gpu", "--dry-run", *words)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_trains_and_tags(run):
    run("data", "build", "shapes", "--data-dir=data", "--num-train=16", "--num-val=8",
        "--size=32")  # fmt: skip
    [data] = (run.folder / "data/shapes").glob("*/1.0.0")
    run("train", "--config=quickstart", "--workdir=w", *TINY, f"--config.data.folder={data}")
    assert (run.folder / "w/predictions.png").is_file()
    photos = run.folder / "photos"
    photos.mkdir()
    Image.fromarray(np.full((40, 50, 3), 200, np.uint8)).save(photos / "a.jpg")
    run("tag", "photos", "--checkpoint=w", "--output=tags.csv", "--top-k=2")
    with (run.folder / "tags.csv").open() as file:
        assert [row["image"] for row in csv.DictReader(file)] == ["a.jpg"] * 2
