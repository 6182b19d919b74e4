# SPDX-License-Identifier: BSD-3-Clause
"""A place for what an attempt at a part has not committed yet."""

import contextlib
import getpass
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.image_shards.layout import SHARDS
from mlimages_jax.prepare import PrepareError
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
        with _temporary(part) as scratch:
            yield scratch
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
    path = _shared() / "kept"
    with writing(path):
        path.mkdir(exist_ok=True)
    return path


@contextlib.contextmanager
def _temporary(part: str) -> Iterator[Path]:
    """Yields a folder in that for temporary files, after removing those of killed processes."""
    shared = _shared()
    for lock in shared.glob("*.lock"):
        with contextlib.suppress(PrepareError), alone(lock):  # it does not live any more
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)
    scratch = shared / f"{part}-{secrets.token_hex(4)}"
    lock = scratch.with_suffix(".lock")
    with alone(lock):
        try:
            with writing(scratch):
                scratch.mkdir()
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _shared() -> Path:
    """Returns this user's folder in that for temporary files, after creating it."""
    owner = getpass.getuser()
    shared = Path(tempfile.gettempdir(), f"mlimages_shards_{owner}")
    with writing(shared):
        shared.mkdir(mode=0o700, exist_ok=True)
    if shared.owner() != owner:
        raise PrepareError(f"{shared} belongs to {shared.owner()}: set TMPDIR to another folder")
    return shared


def _unfinished(local: Path) -> Path:
    """Returns the folder of locks and of what is not committed, after creating it."""
    path = local / "unfinished"
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    return path
