# SPDX-License-Identifier: BSD-3-Clause
"""Builds that are killed, fail, or run on several processes: every byte is the same in the end."""

import errno
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlimages_jax.engines.options import EngineOptions
from tests.support import image_files, ray_nodes
from tests.tfds_builders.built_set import REPOSITORY, TRAIN, records, write_manual_dir
from tfds_builders import ml_images
from tfds_builders.images import unfinished
from tfds_builders.ml_images import __main__ as command

VERSION = "ml_images/released_320/1.0.0"


@pytest.fixture
def manual_dir(tmp_path) -> Path:
    return write_manual_dir(tmp_path / "manual")


def build(manual_dir: Path, data_dir: Path, **options) -> Path:
    return ml_images.build(manual_dir, data_dir, **{"num_shards": 4} | options)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def inodes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.glob("*.array_record-*[0-9]")}


def failing_after(count: int, monkeypatch, error: BaseException, owner=unfinished) -> None:
    """Makes the writing of shards fail after so many, until `monkeypatch.undo()`."""
    write: Callable = owner.write
    left = [count]

    def write_or_fail(*arguments):
        if not left[0]:
            raise error
        left[0] -= 1
        return write(*arguments)

    monkeypatch.setattr(owner, "write", write_or_fail)


@pytest.fixture
def half_done(manual_dir, tmp_path, monkeypatch) -> dict[str, int]:
    """A build that failed after two of its five shards: their names and inodes."""
    failing_after(2, monkeypatch, OSError(errno.EIO, "the cable"))
    with pytest.raises(OSError, match="the cable"):
        build(manual_dir, tmp_path / "data")
    monkeypatch.undo()
    left = inodes(tmp_path / f"data/{VERSION}.unfinished")
    assert len(left) == 2
    assert not (tmp_path / "data" / VERSION).exists()
    return left


# What a killed process was about to do -> the function, and at which of its calls it is killed.
MOMENTS = {
    "read an image": ("shards.ShardWriter._record", 4),
    "name a shard": ("shards.Path.replace", 4),  # after those of inputs, a shard and its note
    "note a shard": ("unfinished._note", 8),  # each shard is looked for first
    "put shards into the set": ("unfinished.os.link", 3),
    "write TFDS's files": ("tfds.core.DatasetInfo.write_to_directory", 1),
    "clean up": ("unfinished.remove", 1),
}


@pytest.mark.parametrize(
    "moment",
    [pytest.param(one, marks=[] if one == "name a shard" else pytest.mark.slow) for one in MOMENTS],
)
def test_killed_and_started_again(manual_dir, tmp_path, moment):
    function, call = MOMENTS[moment]
    script = f"""
import os, signal
import tensorflow_datasets as tfds
from tfds_builders import ml_images
from tfds_builders.images import shards, unfinished
original, calls = {function}, []
def kill(*arguments, **options):
    calls.append(1)
    if len(calls) == {call}: os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **options)
{function} = kill
ml_images.build({str(manual_dir)!r}, {str(tmp_path / "data")!r}, num_shards=4, threads=1)
"""
    killed = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    folder = tmp_path / "data" / VERSION
    assert folder.exists() == (moment == "clean up")
    notes = folder.with_name("1.0.0.unfinished").glob("*[0-9].json")
    finished = {path.name.removesuffix(".json") for path in notes}
    before = inodes(folder.with_name("1.0.0.unfinished"))
    assert len(finished) == {"read an image": 2, "name a shard": 1, "note a shard": 2}.get(
        moment, 5
    )

    assert build(manual_dir, tmp_path / "data") == folder
    after = inodes(folder)
    assert {name: after[name] for name in finished} == {name: before[name] for name in finished}
    assert [path.name for path in folder.parent.iterdir()] == ["1.0.0"]
    assert content(folder) == content(build(manual_dir, tmp_path / "uninterrupted"))


def test_finished_shards_of_a_failed_build_are_used(manual_dir, tmp_path, half_done):
    folder = build(manual_dir, tmp_path / "data", max_skipped=0.5, threads=3)
    assert half_done.items() <= inodes(folder).items()
    assert content(folder) == content(build(manual_dir, tmp_path / "uninterrupted"))
    assert [path.name for path in folder.parent.iterdir()] == ["1.0.0"]


def test_where_files_cannot_have_two_names(manual_dir, tmp_path, half_done, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    folder = build(manual_dir, tmp_path / "data")
    assert half_done.items() <= inodes(folder).items()
    assert content(folder) == content(build(manual_dir, tmp_path / "uninterrupted"))


@pytest.mark.parametrize(
    ("file", "text", "differs"),
    [
        ("train_image_list.txt", "a/red.jpg\t2:0.8\t4:1\n" + "\n".join(TRAIN[1:]), "rows of train"),
        ("val_image_list.txt", "b/red.jpg\t1:1\n", "rows of val"),
        ("dictionary.txt", "dog, domestic dog", "classes"),
    ],
)
def test_other_inputs_start_anew(manual_dir, tmp_path, half_done, caplog, file, text, differs):
    if file == "dictionary.txt":
        text = (manual_dir / file).read_text().replace(text, "dog")
    (manual_dir / file).write_text(text)
    with caplog.at_level(logging.WARNING, logger="absl"):
        folder = build(manual_dir, tmp_path / "data")
    reason = f"other inputs ({differs}), so its shards cannot be reused"
    assert f"{reason}. Starting from scratch." in caplog.text
    assert content(folder) == content(build(manual_dir, tmp_path / "uninterrupted"))


def test_other_options_start_anew(manual_dir, tmp_path, half_done, caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        folder = build(manual_dir, tmp_path / "data", num_shards=3)
    assert "(shards of train)" in caplog.text
    assert len(list(folder.glob("*-train.array_record-*-of-00003"))) == 3
    assert not list(folder.glob("*-train.array_record-*-of-00004"))
    assert [path.name for path in folder.parent.iterdir()] == ["1.0.0"]


def test_a_folder_of_something_else_is_emptied(tmp_path):
    (tmp_path / "lock").touch()
    for text in ("", "{", "[]", "null", "{}", '{"a": "c"}', None):
        (tmp_path / "inputs.json").write_text(text or "")
        if text is None:
            (tmp_path / "inputs.json").unlink()
        (tmp_path / "more").mkdir()
        (tmp_path / "shard").write_bytes(b"old")
        unfinished.begin(tmp_path, {"a": "b"})
        assert {path.name for path in tmp_path.iterdir()} == {"lock", "inputs.json"}


def test_what_a_killed_attempt_was_writing_is_removed(tmp_path):
    unfinished.begin(tmp_path, {"a": "b"})
    (tmp_path / "beam").mkdir()
    (tmp_path / "beam/00000").touch()
    (tmp_path / "unfinished-0123").touch()
    (tmp_path / "shard").touch()
    unfinished.begin(tmp_path, {"a": "b"})
    assert {path.name for path in tmp_path.iterdir()} == {"shard", "inputs.json"}


@pytest.mark.parametrize("damage", ["cut", "exchanged", "grown", "no note", "broken note"])
def test_damaged_shards_are_written_again(manual_dir, tmp_path, half_done, damage):
    waiting = tmp_path / f"data/{VERSION}.unfinished"
    first, second = (waiting / name for name in sorted(half_done))
    note = first.with_name(f"{first.name}.json")
    if damage == "cut":
        os.truncate(first, first.stat().st_size // 2)
    elif damage == "exchanged":  # of the right size, but without its records
        first.write_bytes(bytes(first.stat().st_size))
    elif damage == "grown":
        first.write_bytes(first.read_bytes() * 2)
    elif damage == "no note":
        note.unlink()
    else:
        note.write_text(note.read_text()[:40])
    folder = build(manual_dir, tmp_path / "data")
    assert inodes(folder)[second.name] == half_done[second.name]
    assert content(folder) == content(build(manual_dir, tmp_path / "uninterrupted"))


def test_an_image_that_has_come_since_is_taken(manual_dir, tmp_path, monkeypatch):
    grey = (manual_dir / "images/grey.jpg").read_bytes()
    (manual_dir / "images/grey.jpg").unlink()
    with pytest.raises(ValueError, match="1 of 5 images are unusable"):
        build(manual_dir, tmp_path / "data", num_shards=2, max_skipped=0.1)
    left = inodes(tmp_path / f"data/{VERSION}.unfinished")
    assert len(left) == 3  # all are finished before anybody counts

    (manual_dir / "images/grey.jpg").write_bytes(image_files.HTML)  # still no image
    failing_after(0, monkeypatch, AssertionError("nothing should be written"))
    with pytest.raises(ValueError, match="1 of 5 images are unusable"):
        build(manual_dir, tmp_path / "data", num_shards=2, max_skipped=0.1)
    monkeypatch.undo()

    (manual_dir / "images/grey.jpg").write_bytes(grey)
    folder = build(manual_dir, tmp_path / "data", num_shards=2, max_skipped=0.1)
    kept = {name for name, inode in inodes(folder).items() if left.get(name) == inode}
    assert kept == set(left) - {"ml_images-train.array_record-00001-of-00002"}
    assert content(folder) == content(build(manual_dir, tmp_path / "all", num_shards=2))


def test_an_image_that_has_changed_since_is_read_again(manual_dir, tmp_path, half_done):
    """That of the first of two finished shards: the other one is used as it is."""
    pixels = image_files.noise(40, 50)
    (manual_dir / "images/a/red.jpg").write_bytes(image_files.jpeg(pixels))
    folder = build(manual_dir, tmp_path / "data")
    kept = {name for name, inode in inodes(folder).items() if half_done.get(name) == inode}
    assert kept == set(half_done) - {"ml_images-train.array_record-00000-of-00004"}
    assert content(folder) == content(build(manual_dir, tmp_path / "uninterrupted"))


def test_an_image_that_changed_stays_noticed_over_two_attempts(
    manual_dir, tmp_path, half_done, monkeypatch
):
    (manual_dir / "images/a/red.jpg").write_bytes(image_files.jpeg(image_files.noise()))
    failing_after(0, monkeypatch, OSError(errno.EIO, "the cable again"))
    with pytest.raises(OSError, match="again"):
        build(manual_dir, tmp_path / "data")
    monkeypatch.undo()
    folder = build(manual_dir, tmp_path / "data")
    assert content(folder) == content(build(manual_dir, tmp_path / "uninterrupted"))


def test_two_builds_at_a_time(manual_dir, tmp_path):
    with (
        unfinished.locked(tmp_path / f"data/{VERSION}.unfinished"),
        pytest.raises(BlockingIOError, match="another process is building this data set in"),
    ):
        build(manual_dir, tmp_path / "data")
    assert len(records(build(manual_dir, tmp_path / "data"), "train")) == len(TRAIN)


def test_interrupted_by_the_person(manual_dir, tmp_path, monkeypatch, capsys):
    flags = [
        f"--manual_dir={manual_dir}", f"--data_dir={tmp_path / 'data'}", "--num_shards=4",
        "--name=ml_images",
    ]  # fmt: skip
    failing_after(2, monkeypatch, KeyboardInterrupt())
    with pytest.raises(SystemExit) as ended:
        command.main(flags)
    assert ended.value.code == 130
    assert "run the same command to resume from finished shards" in capsys.readouterr().err
    assert len(inodes(tmp_path / f"data/{VERSION}.unfinished")) == 2


@pytest.mark.slow
def test_a_full_disk(manual_dir, tmp_path):
    # A limit on the size of files stands for it; ArrayRecord reports both alike.
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)
    (manual_dir / "images/grey.jpg").write_bytes(image_files.jpeg(noise))
    script = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
from tfds_builders.ml_images.__main__ import main
main(["--manual_dir={manual_dir}", "--data_dir={tmp_path / "data"}", "--num_shards=4",
      "--short_side=0", "--name=ml_images"])
"""
    failed = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert failed.returncode == 1
    last = failed.stderr.splitlines()[-1]
    assert last.startswith("error: "), failed.stderr
    assert "File too large" in last
    assert "run the same command again to resume" in last
    folder = tmp_path / "data/ml_images/released_original/1.0.0"
    assert not folder.exists()
    assert len(inodes(folder.with_name("1.0.0.unfinished"))) == 1
    build(manual_dir, tmp_path / "data", short_side=None)
    whole = build(manual_dir, tmp_path / "uninterrupted", short_side=None)
    assert content(folder) == content(whole)


def test_a_folder_that_cannot_be_written_to(manual_dir, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="file/data cannot be written to; give another data_dir"):
        build(manual_dir, tmp_path / "file/data")


ENGINES = {
    "three processes": EngineOptions("local", workers=3),
    "ray": EngineOptions("ray", workers=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_engines_write_the_same_bytes(manual_dir, tmp_path, monkeypatch, engine):
    if engine == "ray":
        pytest.importorskip("ray", reason="the extra `ray` is not installed")
        ray_nodes.one_of_its_own(monkeypatch)
    (manual_dir / "images/grey.jpg").write_bytes(image_files.HTML)
    options = {"num_shards": 3, "max_skipped": 0.3, "labels": "closed"}
    here = build(manual_dir, tmp_path / "here", **options)
    there = build(manual_dir, tmp_path / "there", engine=ENGINES[engine], **options)
    assert content(here) == content(there)
    assert [path.name for path in there.parent.iterdir()] == ["1.0.0"]


@pytest.mark.slow
def test_processes_resume_from_finished_shards(manual_dir, tmp_path, half_done):
    (tmp_path / f"data/{VERSION}.unfinished/beam").mkdir()  # left by version 0.1
    folder = build(manual_dir, tmp_path / "data", engine=ENGINES["three processes"])
    assert half_done.items() <= inodes(folder).items()
    assert content(folder) == content(build(manual_dir, tmp_path / "uninterrupted"))


# In every new interpreter: the first that opens this image is killed.
DIES_ONCE = """
import os, signal
real = os.open
def open_or_die(path, *arguments, **options):
    if isinstance(path, str) and path.endswith("grey.jpg") and not os.path.exists({killed!r}):
        os.mkdir({killed!r})
        os.kill(os.getpid(), signal.SIGKILL)
    return real(path, *arguments, **options)
os.open = open_or_die
"""


@pytest.mark.slow
def test_the_shard_of_a_killed_worker_is_written_again(manual_dir, tmp_path, monkeypatch):
    killed, modules = tmp_path / "killed", tmp_path / "modules"
    modules.mkdir()
    (modules / "sitecustomize.py").write_text(DIES_ONCE.format(killed=str(killed)))
    monkeypatch.setenv("PYTHONPATH", str(modules), prepend=os.pathsep)
    folder = build(manual_dir, tmp_path / "data", engine=EngineOptions("local", workers=1))
    assert killed.exists()
    undisturbed = build(manual_dir, tmp_path / "undisturbed")
    sums = [(each / "checksums.txt").read_text() for each in (folder, undisturbed)]
    assert sums[0] == sums[1]  # metadata.json has the times of the images too
