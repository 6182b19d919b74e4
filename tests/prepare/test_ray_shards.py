# SPDX-License-Identifier: BSD-3-Clause
"""Downloads and extractions into image shards by a Ray cluster of several nodes."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from mlimages_jax.data.images.decode import verify
from mlimages_jax.image_shards.outcome import OK
from tests.prepare.test_download import OUTCOMES, ROOT
from tests.prepare.test_download_shards import bytes_of, effective, options
from tests.prepare.test_extract import write_list
from tests.support import image_files, imagenet_archives, ray_nodes

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    with ray_nodes.cluster(nodes=2) as cluster:
        yield cluster


def data(folder, *words):
    """Starts a command in a folder that the nodes of the cluster were not started in."""
    return subprocess.Popen(
        [sys.executable, "-m", "mlimages_jax", "data", *map(str, words), "--engine=ray"],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def killing_workers(process, place, signals):
    """Sends the signals to random workers, one after the other, once parts have begun."""
    generator, killed = random.Random(0), 0
    while killed < len(signals) and process.poll() is None:
        time.sleep(generator.uniform(0.2, 0.6))
        if list(place.glob("unfinished/*-*/*")) and (workers := ray_nodes.busy_workers()):
            generator.choice(workers).send_signal(signals[killed])
            killed += 1
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return killed


def test_a_download_with_killed_workers(cluster, image_server, tmp_path):
    names = [f"{['ok', 'slow', 'flaky', '404'][i % 4]}/ray{i}.jpg" for i in range(200)]
    lines = [f"http://h{i % 24}.test/{name}\n" for i, name in enumerate(names)]
    (tmp_path / "urls.txt").write_text("".join(lines))
    # A request that a busy machine answers too late is one of the tries.
    process = data(tmp_path, "download", "urls.txt", "--output=set", "--shards=12",
                   *options(image_server, "--retries=4"))  # fmt: skip
    assert killing_workers(
        process, tmp_path / "set", [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL]
    )
    found = effective(tmp_path / "set")
    assert len(found) == 200
    for i, name in enumerate(names):
        assert found[f"http://h{i % 24}.test/{name}"].error == OUTCOMES[name.split("/")[0]]
    for content in bytes_of(tmp_path / "set").values():
        verify(content)


def test_an_extraction_with_killed_workers(cluster, tmp_path):
    images = [image_files.jpeg(image_files.noise(48 + i)) for i in range(4)]
    synsets = {
        f"n{k:08d}": {f"n{k:08d}_{i}.JPEG": images[(i + k) % 4] for i in range(40)}
        for k in range(12)
    }
    imagenet_archives.write_nested(tmp_path / "whole.tar", synsets)
    names = [f"{synset}/{name}" for synset, files in synsets.items() for name in files]
    write_list(tmp_path / "list.txt", [*names, "n00000001/n00000001_99.JPEG"])
    process = data(tmp_path, "extract", "whole.tar", "--lists=list.txt", "--output=set",
                   "--shards=6")  # fmt: skip
    killing_workers(process, tmp_path / "set", [signal.SIGKILL])
    found = effective(tmp_path / "set")
    assert len(found) == len(names) + 1
    assert sum(image.status == OK for image in found.values()) == len(names)
