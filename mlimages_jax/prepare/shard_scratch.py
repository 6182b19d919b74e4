# SPDX-License-Identifier: BSD-3-Clause
"""A place for what an attempt at a part has not committed yet."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.image_shards.layout import MANIFEST, RECORDS, SHARDS
from mlimages_jax.prepare.locking import alone
from mlimages_jax.prepare.storing import writing


@contextlib.contextmanager
def scratch_of(folder: ObjectFolder, part: str) -> Iterator[Path]:
    """Yields an empty local folder for what is not committed; removes it at the end.

    On a disk, what an attempt that died has left of the same part is removed. In a bucket it stays,
    as an attempt that is believed dead may be about to commit it.

    Args:
        folder: The folder of image shards.
        part: Name of the part.

    Raises:
        PrepareError: Another process of this machine does the same part, or the folder cannot be
            written to.
    """
    local = folder.local
    if local is None:
        with tempfile.TemporaryDirectory(prefix=f"{part}-") as temporary:
            yield Path(temporary)
        return
    unfinished = local / "unfinished"
    with writing(unfinished):
        unfinished.mkdir(parents=True, exist_ok=True)
    with alone(unfinished / f"{part}.lock"):
        _remove_uncommitted(folder, part)
        for left in unfinished.glob(f"{part}-*"):
            shutil.rmtree(left, ignore_errors=True)
        with writing(unfinished):
            made = tempfile.TemporaryDirectory(prefix=f"{part}-", dir=unfinished)
        with made as scratch:
            yield Path(scratch)


def _remove_uncommitted(folder: ObjectFolder, part: str) -> None:
    """Removes files of records that no manifest commits."""
    names = folder.sizes(SHARDS)
    for name in names:
        stem = name.removesuffix(RECORDS)
        if name.startswith(f"{part}-") and stem != name and f"{stem}{MANIFEST}" not in names:
            folder.remove(f"{SHARDS}/{name}")
