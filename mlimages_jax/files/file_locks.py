# SPDX-License-Identifier: BSD-3-Clause
"""What all locks on files need: locked files are found by name, and names may change hands."""

import errno
import os
from pathlib import Path

NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # file systems without locks


def is_at(path: Path, descriptor: int) -> bool:
    """Returns whether an open file is the one at this path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
