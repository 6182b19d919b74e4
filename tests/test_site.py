# SPDX-License-Identifier: BSD-3-Clause
"""What docs/hooks.py adds to the site: a page for every package, and links that leave docs/."""

import importlib.util
import os
import pkgutil
from pathlib import Path
from types import SimpleNamespace

import pytest

import mlimages_jax
import tfds_builders

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def hooks():
    pytest.importorskip("mkdocs", reason="pip install -r requirements-dev.txt")
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs/hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_has_every_public_module_once(hooks):
    shown = [module for modules in hooks.reference().values() for module in modules]
    there = {
        module.name
        for package in (mlimages_jax, tfds_builders)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not module.name.rpartition(".")[2].startswith("_")
    }
    assert sorted(shown) == sorted({"mlimages_jax", "tfds_builders", *there})


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("launch.md", "../launch/xla_flags.sh", "repository/launch/xla_flags.sh"),
        ("guide/pretrain.md", "../../configs/pretrain.py", "../repository/configs/pretrain.py"),
        ("guide/use.md", "evaluate.md", "evaluate.md"),
        ("guide/use.md", "https://example.org/a.md", "https://example.org/a.md"),
        ("guide/use.md", "../../../somewhere/else.md", "../../../somewhere/else.md"),
        ("repository/CONTRIBUTING.md", "docs/decisions/index.md#a", "../decisions/index.md#a"),
        (
            "repository/tfds_builders/imagenet/README.md",
            "../ml_images/README.md",
            "../ml_images/README.md",
        ),
    ],
)
def test_links_lead_to_pages_of_the_site(hooks, page, link, expected):
    there = SimpleNamespace(file=SimpleNamespace(src_uri=page))
    text = hooks.on_page_markdown(f"see [it]({link}).", page=there, config=None, files=None)
    assert text == f"see [it]({expected})."


def test_links_in_code_are_not_followed(hooks, tmp_path):
    real, example = (os.path.relpath(ROOT / name, tmp_path) for name in ("LICENSE", "setup.py"))
    text = f"[a]({real})\n`[a]({example})`\n\n```\n[a]({example})\n```\n\n    [a]({example})\n"
    (tmp_path / "a.md").write_text(text, encoding="utf-8")
    assert hooks.links(tmp_path / "a.md") == ["repository/LICENSE"]
