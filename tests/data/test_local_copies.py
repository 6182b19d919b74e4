# SPDX-License-Identifier: BSD-3-Clause
import collections
import errno
import os
import subprocess
import sys
import threading
import time

import pytest
from etils import epath

from mlimages_jax.data import local_copies
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.local_copies import LocalCopyError, copy_shards, local_path
from mlimages_jax.data.records import DataSetError
from mlimages_jax.data.streams import assign
from tests.support import record_files

LENGTHS = (3, 3, 2, 2)


@pytest.fixture
def folder(tmp_path):
    """A set that was built long ago."""
    folder = record_files.write_set(tmp_path / "set", LENGTHS)
    for path in record_files.files_of(folder):
        os.utime(path, (1e9, 1e9))
    return folder


def _sources(folder):
    return [epath.Path(path) for path in record_files.files_of(folder)]


def _opened(monkeypatch):
    """Counts how often each source is read."""
    counts = collections.Counter()
    original = local_copies._make

    def make(copy, progress):
        if not copy.is_complete():
            counts[copy.source.name] += 1
        original(copy, progress)

    monkeypatch.setattr(local_copies, "_make", make)
    return counts


def test_a_copy_keeps_the_whole_path_of_its_source(tmp_path, monkeypatch):
    assert str(local_path("gs://bucket/a/1.0.0/x", "/ssd")) == "/ssd/gs/bucket/a/1.0.0/x"
    assert str(local_path("/nfs/a/x", "/ssd")) == "/ssd/nfs/a/x"
    monkeypatch.chdir(tmp_path)
    assert local_path("../x", "/ssd") == local_path(tmp_path.parent / "x", "/ssd")


def test_records_are_those_of_the_copies(folder, tmp_path):
    there = list(DataSet.open(folder).records("train"))
    data = DataSet.open(folder, copy_to=str(tmp_path / "ssd"))
    records = data.records("train")
    for path in record_files.files_of(folder):
        path.unlink()
    assert list(records) == there


def test_a_process_copies_the_files_of_its_streams_only(folder, tmp_path):
    ssd = tmp_path / "ssd"
    DataSet.open(folder, copy_to=str(ssd)).streams("train", count=2, served=[1])
    copied = sorted(path.name for path in ssd.rglob("*") if path.is_file())
    names = [path.name for path in record_files.files_of(folder)]
    assert copied == [names[number] for number in assign(LENGTHS, 2)[1]]


def test_what_is_there_is_not_copied_again(folder, tmp_path, monkeypatch):
    counts = _opened(monkeypatch)
    sources = _sources(folder)
    for _ in range(2):
        copy_shards(sources, tmp_path / "ssd")
    assert counts == {source.name: 1 for source in sources}


def _cut_off(copy, source):
    copy.write_bytes(copy.read_bytes()[:-1])
    os.utime(copy, ns=(0, source.stat().st_mtime_ns))


def _older(copy, source):
    os.utime(copy, (0, 0))


def _gone(copy, source):
    copy.unlink()


@pytest.mark.parametrize("spoil", [_cut_off, _older, _gone])
def test_what_differs_from_its_source_is_copied_again(folder, tmp_path, monkeypatch, spoil):
    sources = _sources(folder)
    copy_shards(sources, tmp_path / "ssd")
    copy = local_path(sources[1], tmp_path / "ssd")
    spoil(copy, record_files.files_of(folder)[1])
    counts = _opened(monkeypatch)
    copy_shards(sources, tmp_path / "ssd")
    assert counts == {sources[1].name: 1}
    assert copy.read_bytes() == sources[1].read_bytes()


def test_what_a_killed_process_left_is_written_over(folder, tmp_path):
    (source, *_) = _sources(folder)
    copy = local_path(source, tmp_path / "ssd")
    copy.parent.mkdir(parents=True)
    unfinished = copy.with_name(f"{copy.name}.copying")
    unfinished.write_bytes(b"x" * 100_000)
    copy_shards([source], tmp_path / "ssd")
    assert copy.read_bytes() == source.read_bytes()
    assert not unfinished.exists()


def test_a_source_that_ends_early_leaves_no_copy(folder, tmp_path, monkeypatch):
    (source, *_) = _sources(folder)
    monkeypatch.setattr(local_copies, "_look", _taller(local_copies._look))
    with pytest.raises(LocalCopyError, match=r"of [\d,]+ bytes received: start again"):
        copy_shards([source], tmp_path / "ssd")
    assert not local_path(source, tmp_path / "ssd").exists()


def _taller(look):
    """The storage promises a byte more than it has."""

    def taller(source, folder):
        copy = look(source, folder)
        return copy._replace(size=copy.size + 1)

    return taller


def test_a_full_disk_says_how_much_is_needed(folder, tmp_path, monkeypatch):
    free = collections.namedtuple("Usage", "free")(10)
    monkeypatch.setattr(local_copies.shutil, "disk_usage", lambda _: free)
    data = DataSet.open(folder, copy_to=str(tmp_path / "ssd"))
    message = r"is full: 4 files of this process still need 0.00 GB, but 0.00 GB are free.*copy_to"
    with pytest.raises(DataSetError, match=message):
        data.records("train")


def test_a_disk_that_becomes_full_says_so_too(folder, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(local_copies.os, "fsync", full)
    with pytest.raises(LocalCopyError, match="is full: 4 files"):
        copy_shards(_sources(folder), tmp_path / "ssd")


def test_a_missing_source_is_named(folder, tmp_path):
    sources = _sources(folder)
    sources[2].unlink()
    data = DataSet.open(folder, copy_to=str(tmp_path / "ssd"))
    with pytest.raises(DataSetError, match="record-00002-of-00004 is missing: copy it"):
        data.records("train")


def test_a_folder_that_cannot_be_made_is_named(folder, tmp_path):
    (tmp_path / "ssd").write_text("a file")
    with pytest.raises(LocalCopyError, match=r"ssd.*give another folder in config.data.copy_to"):
        copy_shards(_sources(folder), tmp_path / "ssd")


def test_one_copies_while_another_waits(folder, tmp_path, monkeypatch):
    """The second comes while the first is at it, and finds the copy made."""
    (source, *_) = _sources(folder)
    copy = local_copies._look(source, tmp_path / "ssd")
    progress = local_copies._Progress(1, copy.size, tmp_path / "ssd", 0.0)
    copy.target.parent.mkdir(parents=True)
    waiting, reads = threading.Event(), []

    class Watched:
        def open(self, mode):
            reads.append(mode)
            assert waiting.wait(30)
            return source.open(mode)

    def second():
        waiting.set()
        local_copies._make(copy._replace(source=Watched()), progress)

    first = threading.Thread(
        target=local_copies._make, args=(copy._replace(source=Watched()), progress)
    )
    first.start()
    while not reads:
        time.sleep(0.001)  # the first has the lock
    other = threading.Thread(target=second)
    other.start()
    first.join()
    other.join()
    assert reads == ["rb"]
    assert copy.target.read_bytes() == source.read_bytes()
    assert not copy.unfinished.exists()


def test_processes_copy_the_same_files_at_the_same_time(folder, tmp_path):
    code = (
        "import sys; from etils import epath; from mlimages_jax.data import local_copies;"
        "local_copies.copy_shards([epath.Path(path) for path in sys.argv[2:]], sys.argv[1])"
    )
    sources = _sources(folder)
    command = [sys.executable, "-c", code, str(tmp_path / "ssd"), *map(str, sources)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    for source in sources:
        assert local_path(source, tmp_path / "ssd").read_bytes() == source.read_bytes()
    assert not list((tmp_path / "ssd").rglob("*.copying"))
