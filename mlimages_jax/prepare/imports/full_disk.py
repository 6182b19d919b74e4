# SPDX-License-Identifier: BSD-3-Clause
"""Adds the folder to errors of a full disk, which do not name a file."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from mlimages_jax.prepare import PrepareError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def names_folder(folder: Path) -> Iterator[None]:
    """Turns errors of a full disk inside of the context into one that names the folder.

    Raises:
        PrepareError: The disk is full; the message says what to do.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise PrepareError(
            f"{folder}: {error.strerror}. Free some space or choose another --output, then run the "
            "same command again; lists written earlier are unchanged"
        ) from error
