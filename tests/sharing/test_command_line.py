# SPDX-License-Identifier: BSD-3-Clause
"""The commands as a user types them, against a Hub on this machine named by HF_ENDPOINT."""

import csv
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from benchmarks.peers.job import inherited_environment
from tests.support import hub_server, small_model
from tests.support.small_run import ROOT

pytest.importorskip("huggingface_hub")


def _run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mlimages_jax", *words],
        cwd=ROOT,
        env={**inherited_environment(), **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_a_model_is_pushed_and_tags_by_its_address(tmp_path):
    workdir = small_model.save(tmp_path / "w", small_model.imported("weighted"))
    images = tmp_path / "images"
    images.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    cv2.imwrite(os.fspath(images / "a.png"), noise)
    with hub_server.running() as (hub, url):
        place = {
            "HF_ENDPOINT": url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "PYTHONPATH": str(ROOT),
        }
        pushed = _run(
            "push", str(workdir), "me/model", "--private", "--license=mit",
            HF_TOKEN=hub_server.TOKEN, **place,
        )  # fmt: skip
        assert pushed.returncode == 0, pushed.stderr
        address = f"hf://me/model@{hub.resolve('me/model', 'main')}"
        assert f'load("{address}") is this version' in pushed.stdout
        tags = [str(images), "--checkpoint=hf://me/model"]
        refused = _run("tag", *tags, f"--output={tmp_path / 'no.csv'}", **place)
        assert refused.returncode == 1
        assert "is private: check the name, and log in" in refused.stderr.splitlines()[-1]
        assert "Traceback" not in refused.stderr
        tagged = _run(
            "tag", *tags, f"--output={tmp_path / 'hub.csv'}", HF_TOKEN=hub_server.TOKEN, **place
        )
        assert tagged.returncode == 0, tagged.stderr
        assert address in tagged.stderr, "the log names the commit"
    own = _run("tag", str(images), f"--checkpoint={workdir}", f"--output={tmp_path / 'own.csv'}")
    assert own.returncode == 0, own.stderr
    rows = [list(csv.reader((tmp_path / f"{name}.csv").open())) for name in ("hub", "own")]
    assert rows[0] == rows[1]
    offline = _run(
        "tag", *tags, f"--output={tmp_path / 'offline.csv'}", HF_HUB_OFFLINE="1", **place
    )
    assert offline.returncode == 0, offline.stderr
