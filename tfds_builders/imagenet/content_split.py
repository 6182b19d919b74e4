# SPDX-License-Identifier: BSD-3-Clause
"""A share of a set's images for validation, by a hash of their content.

The rule: an image goes to val if the hash of its bytes, as a number from 0 to 1, is below the
share. So files with the same bytes fall to one side, whatever they are called and wherever they
are, and an image keeps its side when others come or go. Two exceptions make sets of few images
usable: where all contents of a class would be in val, the one with the largest hash stays in train;
and where val would be empty, it gets the content with the smallest hash that no class needs.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from mlimages_jax.data.archives import ArchiveError

from .listing import Listing

_THREADS = 8  # that wait for the disk


def split_by_content(listing: Listing, val_share: float) -> dict[str, list[int]]:
    """Divides images into train and val.

    Args:
      listing: Of all of them; all are read.
      val_share: Above 0, below 1.

    Returns:
      The numbers of the images of each split, ascending; val may be empty.
    """
    numbers = range(len(listing.names))
    with ThreadPoolExecutor(_THREADS) as threads:
        hashes = list(threads.map(lambda i: _hash(listing, i), numbers))
    of_class: dict[str, set[int]] = defaultdict(set)
    for one, hash_ in zip(listing.classes, hashes, strict=True):
        of_class[one].add(hash_)
    in_val = {hash_ for hash_ in hashes if hash_ < val_share * 2**64}
    kept = {max(contents) for contents in of_class.values() if contents <= in_val}
    in_val -= kept
    if not in_val:
        in_val = _one_that_can_be_spared(list(of_class.values()))
    return {
        "train": [i for i in numbers if hashes[i] not in in_val],
        "val": [i for i in numbers if hashes[i] in in_val],
    }


def _one_that_can_be_spared(classes: Sequence[set[int]]) -> set[int]:
    """The content with the smallest hash without which every class has another one."""
    needed = {next(iter(contents)) for contents in classes if len(contents) == 1}
    spare = sorted(set().union(*classes) - needed)
    return set(spare[:1])


def _hash(listing: Listing, number: int) -> int:
    name = listing.names[number]
    try:
        data = listing.places.place(number, name).read()
    except (OSError, ArchiveError):  # it becomes a skipped image, in train or val alike
        data = name.encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
