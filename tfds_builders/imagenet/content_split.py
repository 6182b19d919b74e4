# SPDX-License-Identifier: BSD-3-Clause
"""Splits off a fraction of a set's images for validation, by a hash of their content.

An image goes to val if the hash of its bytes, as a number from 0 to 1, is below the fraction. So
files with the same bytes are in the same split, whatever their names, and an image stays in its
split when others are added or removed. Two exceptions make small sets usable: if all contents of a
class would be in val, the one with the largest hash stays in train; and if val would be empty, it
gets the content with the smallest hash that no class needs.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from mlimages_jax.data.archives import ArchiveError
from mlimages_jax.files.machine_faults import lacking

from .listing import Listing

_THREADS = 8  # they mostly wait for the disk


def split_by_content(listing: Listing, val_fraction: float) -> dict[str, list[int]]:
    """Divides images into train and val.

    Args:
        listing: All images; all of them are read.
        val_fraction: Fraction for val, above 0 and below 1.

    Returns:
        The indices of the images of each split, ascending; val may be empty.
    """
    numbers = range(len(listing.names))
    with ThreadPoolExecutor(_THREADS) as threads:
        hashes = list(threads.map(lambda i: _hash(listing, i), numbers))
    of_class: dict[str, set[int]] = defaultdict(set)
    for one, hash_ in zip(listing.classes, hashes, strict=True):
        of_class[one].add(hash_)
    in_val = {hash_ for hash_ in hashes if hash_ < val_fraction * 2**64}
    # Every class keeps something to learn from.
    kept = {max(contents) for contents in of_class.values() if contents <= in_val}
    in_val -= kept
    if not in_val:
        in_val = _one_that_can_be_spared(list(of_class.values()))
    return {
        "train": [i for i in numbers if hashes[i] not in in_val],
        "val": [i for i in numbers if hashes[i] in in_val],
    }


def _one_that_can_be_spared(classes: Sequence[set[int]]) -> set[int]:
    """Returns the content with the smallest hash whose classes all have another content."""
    needed = {next(iter(contents)) for contents in classes if len(contents) == 1}
    spare = sorted(set().union(*classes) - needed)
    return set(spare[:1])


def _hash(listing: Listing, number: int) -> int:
    name = listing.names[number]
    try:
        data = listing.places.place(number, name).read()
    except (OSError, ArchiveError) as error:
        if lacking(error):
            raise
        # It becomes a skipped image, in train or val alike.
        data = name.encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
