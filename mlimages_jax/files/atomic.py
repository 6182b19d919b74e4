# SPDX-License-Identifier: BSD-3-Clause
"""Atomic file writes: a file gets its name only when it is complete."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder, which is renamed to `path` at the end.

    If the block raises, the temporary file is removed and any previous file at `path` is kept.
    """
    # In the same folder, as a rename is atomic only within one file system.
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)  # left by a killed job
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
