# SPDX-License-Identifier: BSD-3-Clause
"""Folders of whole files while other processes write there, and buckets that fail."""

import contextlib
import errno
import os

import fsspec
import pytest
from fsspec.implementations import memory

from mlimages_jax.files.object_folder import ObjectFolder, local_copy


def test_what_vanishes_meanwhile_hides_nothing_else(tmp_path, monkeypatch):
    for name in ("a", "b.unfinished", "c"):
        (tmp_path / name).write_text(name)
    scandir = os.scandir

    @contextlib.contextmanager
    def slow(folder):
        with scandir(folder) as entries:
            found = list(entries)
        (tmp_path / "b.unfinished").unlink()
        yield iter(found)

    monkeypatch.setattr(os, "scandir", slow)
    assert ObjectFolder(tmp_path).sizes() == {"a": 1, "c": 1}
    assert ObjectFolder(tmp_path / "missing").sizes() == {}


@pytest.fixture
def bucket(tmp_path):
    yield ObjectFolder(f"memory://{tmp_path.name}/set")
    with contextlib.suppress(FileNotFoundError):
        fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


class ServerError(Exception):
    """As of aiohttp or gcsfs, which are no OSErrors."""


def fail(*_, **__):
    raise ServerError("500, try again\nlater")


@pytest.mark.parametrize(
    ("method", "use"),
    [
        ("ls", lambda folder, _: folder.sizes()),
        ("modified", lambda folder, _: folder.modified("a")),
        ("info", lambda folder, _: folder.size("a")),
        ("cat_file", lambda folder, _: folder.read("a")),
        ("open", lambda folder, _: folder.open("a").__enter__()),
        ("pipe_file", lambda folder, _: folder.write("a", b"")),
        ("put_file", lambda folder, path: folder.put(path, "b")),
        ("rm_file", lambda folder, _: folder.remove("a")),
    ],
)
def test_what_a_bucket_fails_with_is_an_error_of_the_system(
    bucket, tmp_path, monkeypatch, method, use
):
    bucket.write("a", b"1")
    (tmp_path / "b").write_bytes(b"2")
    monkeypatch.setattr(memory.MemoryFileSystem, method, fail)
    with pytest.raises(OSError, match=r"ServerError: 500, try again.*later.*memory://") as failed:
        use(bucket, tmp_path / "b")
    assert failed.value.errno == errno.EIO and "\n" not in str(failed.value)
    assert (tmp_path / "b").exists()


def test_so_are_failures_in_the_middle_of_a_file(bucket, monkeypatch):
    bucket.write("a", bytes(range(256)) * 1000)
    with bucket.open("a") as file:
        assert file.read(3) == b"\0\1\2" and file.seek(-1, os.SEEK_END) == 255_999
        assert file.read() == b"\xff" and file.tell() == 256_000
        file.seek(0)
        monkeypatch.setattr(memory.MemoryFile, "read", fail)
        with pytest.raises(OSError, match=r"ServerError.*/set/a") as failed:
            file.read()
    assert failed.value.errno == errno.EIO


def test_a_small_file_is_read_in_one_request(bucket, monkeypatch):
    bucket.write("a", b"1")
    monkeypatch.setattr(memory.MemoryFileSystem, "open", fail)
    assert bucket.read("a") == b"1"
    with pytest.raises(FileNotFoundError):
        bucket.read("b")


def test_a_name_without_a_folder_is_in_the_current_one(tmp_path, monkeypatch):
    (tmp_path / "data").write_bytes(b"here")
    monkeypatch.chdir(tmp_path)
    with local_copy("data") as path:
        assert path.read_bytes() == b"here"
    assert ObjectFolder("").read("data") == b"here"
    assert ObjectFolder("/").place == "/"
