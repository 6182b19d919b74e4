# SPDX-License-Identifier: BSD-3-Clause
"""Temporary folders: those of living processes stay, those of dead ones go."""

import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mlimages_jax.files import scratch
from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.files.scratch import TemporaryFolder, shared_folder
from mlimages_jax.prepare import PrepareError, shard_scratch

HOLD = """
import pathlib, time
from mlimages_jax.files.scratch import TemporaryFolder
with TemporaryFolder("one-") as name:
    pathlib.Path(name, "file").write_bytes(b"1")
    print(name, flush=True)
    time.sleep(99)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_a_killed_process_left_is_removed_by_the_next(temporary):
    command = [sys.executable, "-c", HOLD]
    environment = os.environ | {"TMPDIR": str(temporary)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as other:
        left = Path(other.stdout.readline().strip())
        try:
            with TemporaryFolder() as name:
                assert Path(name).parent == left.parent and (left / "file").is_file()
        finally:
            other.kill()
    assert (left / "file").is_file()
    with TemporaryFolder("two-") as name:
        assert Path(name).is_dir() and not left.exists()
    assert not list(left.parent.iterdir())


def test_folders_of_this_process_stay_until_they_are_dropped():
    one, two = TemporaryFolder(), TemporaryFolder()
    assert Path(one.name).is_dir() and Path(two.name).is_dir()
    one.cleanup()
    assert not Path(one.name).exists() and Path(two.name).is_dir()


def test_one_that_another_process_takes_for_dead_before_it_is_locked(monkeypatch):
    def removed_once(path, descriptor):
        if not first:
            first.append(path)
            path.rmdir()
        return is_at(path, descriptor)

    first, is_at = [], scratch.is_at
    monkeypatch.setattr(scratch, "is_at", removed_once)
    with TemporaryFolder() as name:
        assert Path(name).is_dir() and Path(name) != first[0]


@pytest.mark.parametrize(
    "use",
    [
        lambda bucket: bucket.creating("x"),
        lambda bucket: bucket.local_copy("y"),
        lambda bucket: shard_scratch.scratch_of(bucket, "00000-of-00001"),
    ],
)
def test_files_on_their_way_to_or_from_a_bucket_are_there(temporary, use):
    bucket = ObjectFolder("memory://scratch")
    bucket.write("y", b"1")
    with use(bucket) as path:
        assert shared_folder("unfinished") in path.parents
        path.touch()
    assert not list(shared_folder("unfinished").iterdir())
    bucket.remove("x")


def test_a_folder_of_another_user_is_refused(temporary, monkeypatch):
    shared_folder("kept")
    monkeypatch.setattr(scratch.os, "getuid", lambda: 12345)
    (temporary / "mlimages_12345").mkdir()
    message = "mlimages_12345 in it belongs to another user, .*: set TMPDIR"
    with pytest.raises(OSError, match=message):
        TemporaryFolder()
    with pytest.raises(PrepareError, match=message):
        shard_scratch.kept_between_parts(ObjectFolder("memory://scratch"))


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_folder_is_refused_with_what_to_do(temporary, make):
    make(temporary / f"mlimages_{os.getuid()}")
    with pytest.raises(OSError, match="is a link or a file: set TMPDIR"):
        TemporaryFolder()


def test_a_process_forked_while_one_is_removed_does_not_keep_its_lock(monkeypatch):
    def forked_meanwhile(path, ignore_errors):
        copies.append(os.dup(locked[-1]))  # shares the lock, like that of a forked process

    copies, locked, flock = [], [], fcntl.flock
    new = shared_folder("unfinished") / "of-another-process"
    new.mkdir()
    monkeypatch.setattr(scratch.shutil, "rmtree", forked_meanwhile)
    monkeypatch.setattr(
        scratch.fcntl, "flock", lambda file, how: (locked.append(file), flock(file, how))
    )
    scratch._remove_dead(new.parent)
    descriptor = os.open(new, os.O_RDONLY)
    flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for each in (descriptor, *copies):
        os.close(each)
