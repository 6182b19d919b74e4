# SPDX-License-Identifier: BSD-3-Clause
"""Removes files of records that no manifest commits: what killed workers have left in a folder.

On a disk the next attempt at the same part removes them at once, as a lock tells it that the
earlier one has ended. A bucket has no locks, and an attempt that is believed dead may still live,
on a machine that the network has lost. So time decides: an attempt commits records within
`LATEST_COMMIT` of their arrival or not at all (`image_shards.writer`), and here those are removed
that are twice as old by the clock of the bucket.
"""

import sys

from tqdm import tqdm

from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.image_shards import repeated
from mlimages_jax.image_shards.layout import MANIFEST, RECORDS, SHARDS
from mlimages_jax.image_shards.writer import LATEST_COMMIT

_AGE = 2 * LATEST_COMMIT


def uncommitted(sizes: dict[str, int], *, part: str = "") -> list[str]:
    """Returns the names of files of records without a manifest, perhaps of one part only."""
    return [
        name
        for name in sizes
        if name.startswith(part)
        and name.endswith(RECORDS)
        and f"{name.removesuffix(RECORDS)}{MANIFEST}" not in sizes
    ]


def remove_leftovers(folder: ObjectFolder) -> None:
    """Removes old files of records without a manifest, and says so.

    Args:
        folder: A folder of image shards, at the end of a run that did all parts and has just
            written the repeated contents.

    Raises:
        OSError: The folder cannot be read or written.
    """
    sizes = folder.sizes(SHARDS)
    now = folder.modified(repeated.FILE)
    names = [
        name for name in uncommitted(sizes) if now - folder.modified(f"{SHARDS}/{name}") > _AGE
    ]
    for name in names:
        folder.remove(f"{SHARDS}/{name}")
    if names:
        megabytes = sum(sizes[name] for name in names) / 1e6
        text = f"{folder}: removed {len(names):,} files of killed workers, {megabytes:,.1f} MB"
        tqdm.write(text, file=sys.stderr)
