# SPDX-License-Identifier: BSD-3-Clause
"""Feature export: arrays of any length on disk, complete or resumable."""

import contextlib
import os
from collections.abc import Iterator

from mlimages_jax.files.escaping import one_line


class FeatureFilesError(ValueError):
    """Raised when a folder lacks the requested features or contains other or damaged ones."""


@contextlib.contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Names the file of an export that cannot be read in the block.

    Raises:
        FeatureFilesError: If the block raised anything; says what to do.
    """
    name = os.fspath(path)
    try:
        yield
    except FileNotFoundError as error:
        raise FeatureFilesError(
            f"{name} is missing: the folder was not copied completely; copy it again, or export "
            "again"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # damage makes json, NumPy and Arrow raise any type
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of the file
            raise
        reason = one_line(f"{type(error).__name__}: {error}"[:200])
        raise FeatureFilesError(
            f"{name} is damaged ({reason}): restore it from a copy, or export again into another "
            "folder"
        ) from error
