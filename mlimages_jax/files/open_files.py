# SPDX-License-Identifier: BSD-3-Clause
"""Raises the limit of open files of this process (`ulimit -n`)."""

import contextlib
import sys

try:
    import resource
except ImportError:  # on Windows, which has no such limit
    resource = None  # type: ignore[assignment]  # mypy takes it for a module everywhere


def allow(wanted: int) -> int:
    """Raises the limit if it is lower, as far as the system allows.

    Many systems let a process have 256 or 1,024, and more if it asks for them.

    Args:
        wanted: Number of files, sockets and pipes to have open at once.

    Returns:
        The limit from now on; `sys.maxsize` if there is none.
    """
    if resource is None:
        return sys.maxsize
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return sys.maxsize
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < possible:
        # macOS refuses more than OPEN_MAX even where it calls the limit infinite.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
            return possible
    return soft
