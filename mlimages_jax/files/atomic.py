# SPDX-License-Identifier: BSD-3-Clause
"""Files that appear under their name only when they are complete."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """Yields another name in the same folder; what was written there becomes `path` at the end.

    Where the block raises, what was at `path` before stays, and nothing else.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)  # of a job that was killed
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
