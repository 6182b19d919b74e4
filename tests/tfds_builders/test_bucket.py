# SPDX-License-Identifier: BSD-3-Clause
"""Sets that are built into buckets of both stores: as on a disk, and resumed after any end."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest

from mlimages_jax.data.dataset import DataSet
from mlimages_jax.engines.options import EngineOptions
from mlimages_jax.files.object_folder import ObjectFolder
from tests.support import emulated_bucket, image_files, ray_nodes
from tests.tfds_builders.built_set import REPOSITORY, TRAIN, write_manual_dir
from tests.tfds_builders.test_unfinished import build, content, failing_after
from tfds_builders.images.bucket import BucketSet, OtherBuildError
from tfds_builders.images.fingerprint import StaleSetError
from tfds_builders.images.shards import WrittenShard
from tfds_builders.ml_images import __main__ as command

VERSION = "sets/ml_images/released_320/1.0.0"


@pytest.fixture
def manual_dir(tmp_path) -> Path:
    return write_manual_dir(tmp_path / "manual")


@pytest.fixture(params=emulated_bucket.STORES)
def bucket(request, tmp_path, monkeypatch):
    """The URL of the folder of sets; its files are in tmp_path / "bucket"."""
    with emulated_bucket.serve(request.param, tmp_path / "bucket", monkeypatch):
        yield f"{request.param}://bucket/sets"


def objects(tmp_path) -> dict[str, int]:
    """Names of all objects with the times of their last change."""
    root = tmp_path / "bucket"
    return {
        path.relative_to(root).as_posix(): path.stat().st_mtime_ns
        for path in root.rglob("*")
        if path.is_file() and path.stat().st_size  # without objects that stand for a folder
    }


def built_content(tmp_path) -> dict[str, bytes]:
    folder = tmp_path / "bucket" / VERSION
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.stat().st_size}


@pytest.fixture
def half_done(manual_dir, bucket, tmp_path, monkeypatch) -> dict[str, int]:
    """A build that failed after two of its five shards, which are in the bucket."""
    with monkeypatch.context() as patch:
        failing_after(2, patch, OSError(errno.EIO, "the cable"), owner=BucketSet)
        with pytest.raises(OSError, match="the cable"):
            build(manual_dir, bucket)
    names = [name for name in objects(tmp_path) if name.endswith(tuple("0123456789"))]
    assert len(names) == 2
    return {name: time for name, time in objects(tmp_path).items() if name in names}


def test_the_same_bytes_as_on_a_disk(manual_dir, bucket, tmp_path, caplog):
    folder = build(manual_dir, bucket)
    assert str(folder) == f"{bucket}/ml_images/released_320/1.0.0"
    assert built_content(tmp_path) == content(build(manual_dir, tmp_path / "disk"))
    assert all(name.startswith(f"{VERSION}/") for name in objects(tmp_path)), "nothing is left"
    assert DataSet.open(folder).num_records("train") == len(TRAIN)
    before = objects(tmp_path)
    with caplog.at_level(logging.INFO, logger="absl"):
        build(manual_dir, bucket)
    assert "nothing to do" in caplog.text
    with pytest.raises(StaleSetError, match=r"4 in the set, 3 now(.|\n)*cannot be repla"):
        build(manual_dir, bucket, num_shards=3)
    with pytest.raises(ValueError, match="cannot be replaced at once"):
        build(manual_dir, bucket, overwrite=True)
    assert objects(tmp_path) == before


def test_what_is_there_is_not_done_again(manual_dir, bucket, tmp_path, half_done):
    with pytest.raises(FileNotFoundError, match="is not a built data set"):
        DataSet.open(f"{bucket}/ml_images/released_320/1.0.0")
    build(manual_dir, bucket)
    assert half_done.items() <= objects(tmp_path).items()
    assert built_content(tmp_path) == content(build(manual_dir, tmp_path / "disk"))
    assert all(name.startswith(f"{VERSION}/") for name in objects(tmp_path))


def test_another_build_is_refused(manual_dir, bucket, tmp_path, half_done):
    before = objects(tmp_path)
    with pytest.raises(OtherBuildError, match=r"other inputs \(shards of train\): repeat th"):
        build(manual_dir, bucket, num_shards=3)
    (manual_dir / "val_image_list.txt").write_text("b/red.jpg\t1:1\n")
    with pytest.raises(OtherBuildError, match=r"\(rows of val\)"):
        build(manual_dir, bucket)
    assert objects(tmp_path) == before


def test_images_that_changed_since_are_read_again(manual_dir, bucket, tmp_path, half_done):
    long_ago = time.time() - 3600
    for path in (manual_dir / "images").rglob("*.jpg"):
        os.utime(path, (long_ago, long_ago))
    (manual_dir / "images/a/red.jpg").write_bytes(image_files.jpeg(image_files.noise(40, 50)))
    build(manual_dir, bucket)
    assert built_content(tmp_path) == content(build(manual_dir, tmp_path / "disk"))


def test_the_list_of_skipped_images_is_in_the_bucket(manual_dir, bucket, tmp_path, capsys):
    grey = (manual_dir / "images/grey.jpg").read_bytes()
    (manual_dir / "images/grey.jpg").write_bytes(image_files.HTML)
    words = [f"--manual-dir={manual_dir}", f"--data-dir={bucket}", "--name=ml_images"]
    with pytest.raises(SystemExit, match=f"{bucket}/ml_images/released_320/1.0.0.skipped.tsv"):
        command.main([*words, "--max-skipped=0"])
    table = (tmp_path / "bucket" / f"{VERSION}.skipped.tsv").read_text()
    assert "train\tgrey.jpg\t" in table
    (manual_dir / "images/grey.jpg").write_bytes(grey)
    command.main([*words, "--max-skipped=0"])
    assert capsys.readouterr().out == f"{bucket}/ml_images/released_320/1.0.0\n"
    assert all(name.startswith(f"{VERSION}/") for name in objects(tmp_path))


@pytest.mark.slow
def test_a_shard_that_cannot_be_uploaded(manual_dir, tmp_path, monkeypatch):
    with emulated_bucket.serve("s3", tmp_path / "bucket", monkeypatch) as storage:
        storage.fail = lambda method, name: "00002-of-00004" in name and method != "HEAD"
        with pytest.raises(OSError, match=r"train.array_record-00002-of-00004 cannot be written .*"
                           r"run the same command again to resume"):  # fmt: skip
            build(manual_dir, "s3://bucket/sets")
        assert f"{VERSION}/ml_images-train.array_record-00002-of-00004" not in objects(tmp_path)
        storage.fail = lambda method, name: False
        build(manual_dir, "s3://bucket/sets")
    assert built_content(tmp_path) == content(build(manual_dir, tmp_path / "disk"))


@pytest.mark.slow
def test_a_ray_cluster_builds_into_a_bucket(manual_dir, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    ray_nodes.one_of_its_own(monkeypatch)
    with emulated_bucket.serve("s3", tmp_path / "bucket", monkeypatch):
        build(manual_dir, "s3://bucket/sets", engine=EngineOptions("ray", workers=2))
    assert built_content(tmp_path) == content(build(manual_dir, tmp_path / "disk"))


def test_a_url_that_is_no_longer_one(manual_dir):
    with pytest.raises(ValueError, match="gs:/bucket/sets: pathlib removed a slash"):
        build(manual_dir, Path("gs://bucket/sets"))


@pytest.fixture
def memory(tmp_path):
    """A set in a bucket of fsspec's that is kept in memory."""
    url = f"memory://{tmp_path.name}"
    yield BucketSet(ObjectFolder(url), "1.0.0")
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


SHARD = WrittenShard("train", "shard", 3, "abc", 1, 3, 1, [])


def test_shards_that_are_not_what_their_notes_say(memory, caplog):
    path = Path("shard")
    assert memory.load(path) is None
    memory.parent.write("1.0.0.unfinished/shard.json", json.dumps(SHARD._asdict()).encode())
    assert memory.load(path) is None
    memory.parent.write("1.0.0/shard", b"12")
    assert memory.load(path) is None
    assert "shard is missing" in caplog.text and "is 2 bytes instead of 3" in caplog.text
    memory.begin({"a": "b"})
    with pytest.raises(OSError, match="shard was written, but now has 2 bytes instead of 3"):
        memory.finish([SHARD], {}, {"a": "b"})
    with pytest.raises(OtherBuildError, match=r"another build, with other inputs \(a\)"):
        memory.finish([SHARD], {}, {"a": "c"})  # both began at the same time
    memory.parent.write("1.0.0/shard", b"123")
    assert memory.load(path) == SHARD
    memory.discard(path)
    assert memory.load(path) is None
    memory.parent.write("1.0.0.unfinished/shard.json", b"{")
    assert memory.load(path) is None and "is damaged" in caplog.text


def test_a_folder_of_something_else(memory):
    memory.parent.write("1.0.0/holiday.jpg", b"")
    with pytest.raises(FileExistsError, match=r"nor a begun one \(1.0.0.unfinished/inputs.json is"):
        memory.is_finished()
    memory.begin({"a": "b"})
    assert not memory.is_finished()
    for text in ("", "{", "[]", "{}", '{"inputs": 1, "began": 1}'):
        memory.parent.write("1.0.0.unfinished/inputs.json", text.encode())
        with pytest.raises(OtherBuildError, match=r"inputs.json is damaged .* to start from scrat"):
            memory.begin({"a": "b"})


# What a killed program was about to do -> the method, its call, and the number of workers.
MOMENTS = {
    "upload a shard": ("object_folder.ObjectFolder.put", 3, 0),
    "note a shard": ("bucket.BucketSet._note", 8, 0),  # each is looked for first
    "collect what workers wrote": ("pace.Pace.log", 2, 2),
    "upload the metadata": ("object_folder.ObjectFolder.put", 3, 2),
    "clean up": ("bucket.BucketSet.tidy", 1, 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_started_again(manual_dir, bucket, tmp_path, moment):
    function, call, workers = MOMENTS[moment]
    script = f"""
import os, signal
from mlimages_jax.files import object_folder
from mlimages_jax.engines.options import EngineOptions
from tfds_builders import ml_images
from tfds_builders.images import bucket, pace
original, calls = {function}, []
def kill(*arguments):
    calls.append(1)
    if len(calls) == {call}: os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments)
{function} = kill
ml_images.build({str(manual_dir)!r}, {bucket!r}, num_shards=4, threads=1,
                engine=EngineOptions(workers={workers}))
"""
    (tmp_path / "left").mkdir()  # what a killed program leaves in TMPDIR
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True,
        env=os.environ | {"TMPDIR": str(tmp_path / "left")},
    )  # fmt: skip
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    notes = [name for name in objects(tmp_path) if name.endswith(".json") and "array_rec" in name]
    finished = {name.replace(".unfinished", "").removesuffix(".json") for name in notes}
    before = objects(tmp_path)
    folder = build(manual_dir, bucket)
    after = objects(tmp_path)
    assert finished
    assert {name: after[name] for name in finished} == {name: before[name] for name in finished}
    assert built_content(tmp_path) == content(build(manual_dir, tmp_path / "disk"))
    assert DataSet.open(folder).num_records("train") == len(TRAIN)
    assert all(name.startswith(f"{VERSION}/") for name in objects(tmp_path))
