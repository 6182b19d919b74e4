# SPDX-License-Identifier: BSD-3-Clause
"""Files of records on disks that fill up."""

import contextlib
import errno
import os
import resource

import pytest
from array_record.python.array_record_module import ArrayRecordReader

from mlimages_jax.files.record_writer import RecordWriter


@contextlib.contextmanager
def files_of_at_most(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_records_in_order(tmp_path):
    writer = RecordWriter(tmp_path / "file")
    for record in b"1", b"", b"3":
        writer.write(record)
    writer.close()
    assert ArrayRecordReader(str(tmp_path / "file")).read([2, 0, 1]) == [b"3", b"1", b""]


def test_a_full_disk_is_an_error_of_the_system(tmp_path):
    path = tmp_path / "file"
    writer = RecordWriter(path)
    writer.write(b"x" * 100_000)
    with files_of_at_most(1_000):
        for _ in range(2):  # not as if the second attempt had succeeded
            with pytest.raises(OSError, match="File too large") as failed:
                writer.close()
            assert (failed.value.errno, failed.value.filename) == (errno.EFBIG, str(path))
    with pytest.raises(FileNotFoundError):
        RecordWriter(tmp_path / "missing" / "file").close()


def test_a_path_that_is_not_utf_8_is_told(tmp_path):
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    with pytest.raises(OSError, match="need a path in UTF-8: choose another folder"):
        RecordWriter(folder / "file")
