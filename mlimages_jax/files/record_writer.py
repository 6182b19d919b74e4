# SPDX-License-Identifier: BSD-3-Clause
"""Writes ArrayRecord files whose records are read in any order, with errors of the system."""

import contextlib
import errno
import os
from collections.abc import Iterator

from array_record.python.array_record_module import ArrayRecordWriter

# One record a group, as single records are read and a group is read whole. What is stored is
# compressed, or does not become smaller.
_OPTIONS = "group_size:1,uncompressed"
_DISK = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT,
    errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EMFILE,
)  # fmt: skip


class RecordWriter:
    """An ArrayRecord file that is being written; without `close` it cannot be read.

    Args:
        path: The file.

    Raises:
        OSError: From all methods: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self._path = os.fspath(path)
        with self._errors():
            self._writer = ArrayRecordWriter(self._path, _OPTIONS)

    def write(self, record: bytes) -> None:
        """Appends a record."""
        with self._errors():
            self._writer.write(record)

    def close(self) -> None:
        """Writes the rest and the index; fails again if it failed before."""
        with self._errors():
            self._writer.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turns a RuntimeError of ArrayRecord, which has the system's words, into an OSError."""
        try:
            yield
        except RuntimeError as error:
            text = str(error)
            for number in _DISK:
                if os.strerror(number) in text:
                    raise OSError(number, os.strerror(number), self._path) from error
            raise OSError(errno.EIO, text, self._path) from error
