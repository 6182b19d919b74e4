# SPDX-License-Identifier: BSD-3-Clause
"""Tells faults of this machine from those of a file, which a long job records and passes over."""

import errno
import os

_LACKING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT)


def lacking(error: BaseException) -> OSError | None:
    """Returns the error as one of the system if open files, memory or room are lacking; else None.

    Args:
        error: An OSError, or an error of a library that has the system's words.
    """
    if isinstance(error, OSError):
        return error if error.errno in _LACKING else None
    for number in _LACKING:
        if os.strerror(number) in str(error):
            return OSError(number, os.strerror(number))
    return None
