# SPDX-License-Identifier: BSD-3-Clause
"""Errors of a full disk name no file: here they get the name of the folder."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from mlimages_jax.prepare import PrepareError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def names_folder(folder: Path) -> Iterator[None]:
    """Says which folder has no room for what is written within the context.

    Raises:
        PrepareError: with what to do.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise PrepareError(
            f"{folder}: {error.strerror}. Make room there or give another --output, and run the "
            "same command again; lists that were there before are as they were"
        ) from error
