# SPDX-License-Identifier: BSD-3-Clause
"""A place for what an attempt at a part has not committed yet."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.files.scratch import TemporaryFolder, shared_folder
from mlimages_jax.image_shards.layout import SHARDS
from mlimages_jax.prepare.locking import alone
from mlimages_jax.prepare.shard_leftovers import uncommitted
from mlimages_jax.prepare.storing import writing

# Seconds: an attempt whose machine is believed dead may go on until it notices that it is alone.
_PATIENCE = 300.0


@contextlib.contextmanager
def only_run(folder: ObjectFolder) -> Iterator[None]:
    """Holds a lock on a folder of image shards; in a bucket, where there are none, does nothing.

    Raises:
        PrepareError: Another command writes there, or the folder cannot be written to.
    """
    if folder.local is None:
        yield
        return
    with alone(_unfinished(folder.local) / "run.lock"):
        yield


@contextlib.contextmanager
def scratch_of(folder: ObjectFolder, part: str) -> Iterator[Path]:
    """Yields an empty local folder for what is not committed; removes it at the end.

    On a disk, what an attempt that died has left of the same part is removed. In a bucket it stays
    until it is old, see `shard_leftovers`.

    Args:
        folder: The folder of image shards.
        part: Name of the part.

    Raises:
        PrepareError: Another process still does the same part after `_PATIENCE` seconds, or the
            folder cannot be written to.
    """
    local = folder.local
    if local is None:
        with writing(Path(tempfile.gettempdir())):
            temporary = TemporaryFolder(prefix=f"{part}-")
        with temporary as scratch:
            yield Path(scratch)
        return
    unfinished = _unfinished(local)
    with alone(unfinished / f"{part}.lock", patience=_PATIENCE):
        for name in uncommitted(folder.sizes(SHARDS), part=f"{part}-"):
            folder.remove(f"{SHARDS}/{name}")
        for left in unfinished.glob(f"{part}-*"):
            shutil.rmtree(left, ignore_errors=True)
        with writing(unfinished):
            made = tempfile.TemporaryDirectory(prefix=f"{part}-", dir=unfinished)
        with made as scratch:
            yield Path(scratch)


def kept_between_parts(folder: ObjectFolder) -> Path:
    """Returns a local folder for what all parts that this machine does can use.

    Args:
        folder: The folder of image shards; itself, if it is on a disk.

    Raises:
        PrepareError: The folder for temporary files belongs to another user, or cannot be written
            to.
    """
    if folder.local is not None:
        return folder.local
    with writing(Path(tempfile.gettempdir())):
        return shared_folder("kept")


def _unfinished(local: Path) -> Path:
    """Returns the folder of locks and of what is not committed, after creating it."""
    path = local / "unfinished"
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    return path
