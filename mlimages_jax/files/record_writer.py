# SPDX-License-Identifier: BSD-3-Clause
"""Writes ArrayRecord files whose records are read in any order, with errors of the system."""

import errno
import os

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
        try:
            self._writer = ArrayRecordWriter(self._path, _OPTIONS)
        except TypeError as error:  # its strings are UTF-8, those of Linux any bytes
            reason = "ArrayRecord files need a path in UTF-8: choose another folder"
            raise OSError(errno.EILSEQ, reason, self._path) from error
        except RuntimeError as error:
            raise self._as_os_error(error) from error

    def write(self, record: bytes) -> None:
        """Appends a record."""
        try:  # a context manager would cost as much as the call
            self._writer.write(record)
        except RuntimeError as error:
            raise self._as_os_error(error) from error

    def close(self) -> None:
        """Writes the rest and the index; fails again if it failed before."""
        try:
            self._writer.close()
        except RuntimeError as error:
            raise self._as_os_error(error) from error

    def _as_os_error(self, error: RuntimeError) -> OSError:
        """Finds the system's error, of which ArrayRecord has only the words."""
        text = str(error)
        for number in _DISK:
            if os.strerror(number) in text:
                return OSError(number, os.strerror(number), self._path)
        return OSError(errno.EIO, text, self._path)
