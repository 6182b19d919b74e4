# SPDX-License-Identifier: BSD-3-Clause
"""Whole files or none, also of several writers at once, and nothing left by those that died."""

import contextlib
import errno
import fcntl
import os
import subprocess
import sys

import pytest

from mlimages_jax.files.atomic import complete_file
from tests.support.small_run import ROOT

KILLED = """
import os, pathlib, signal, sys
from mlimages_jax.files.atomic import complete_file
with complete_file(pathlib.Path(sys.argv[1])) as unfinished:
    unfinished.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_whole_or_what_it_was(tmp_path):
    path = tmp_path / "file"
    with complete_file(path) as unfinished:
        unfinished.write_text("first")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), complete_file(path) as unfinished:
        unfinished.write_text("second")
        raise KeyboardInterrupt
    assert path.read_text() == "first" and names(tmp_path) == ["file"]


@pytest.mark.parametrize("first_ends_first", [True, False])
def test_two_writers_do_not_touch_each_others_file(tmp_path, first_ends_first):
    path = tmp_path / "file"
    with contextlib.ExitStack() as one, contextlib.ExitStack() as other:
        one.enter_context(complete_file(path)).write_text("one")
        other.enter_context(complete_file(path)).write_text("other")
        order = [(one, "one"), (other, "other")]
        for stack, text in order if first_ends_first else order[::-1]:
            stack.close()
            assert path.read_text() == text
    assert names(tmp_path) == ["file"]


def test_what_a_killed_writer_left_is_removed(tmp_path):
    path = tmp_path / "file"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT)
    assert names(tmp_path) == ["file.unfinished"]
    with complete_file(path) as unfinished:
        assert unfinished.name == "file.unfinished" and not unfinished.read_bytes()
    (tmp_path / "else").write_text("kept")
    (tmp_path / "file.unfinished").symlink_to("else")
    with complete_file(path) as unfinished:
        unfinished.write_text("new")
    assert path.read_text() == "new" and (tmp_path / "else").read_text() == "kept"
    assert names(tmp_path) == ["else", "file"]


def test_too_many_open_files_are_no_reason_to_remove_one(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    with complete_file(tmp_path / "file") as unfinished:
        with monkeypatch.context() as patched, pytest.raises(OSError, match="Too many"):
            patched.setattr(os, "open", none)
            complete_file(tmp_path / "file").__enter__()
        assert unfinished.exists()


def test_where_there_are_no_locks(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    (tmp_path / "file.unfinished").write_text("half")
    with complete_file(tmp_path / "file") as unfinished:
        unfinished.write_text("new")
    assert names(tmp_path) == ["file"]
