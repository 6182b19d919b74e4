# SPDX-License-Identifier: BSD-3-Clause
"""Images inside of image shards, as `mlimages data download --shards` writes them.

Their manifests are read once; then every row of a list knows its shard and record, and any thread
or machine may read it. Images that are in no shard are looked for elsewhere.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from mlimages_jax.image_shards.index import digests, find
from mlimages_jax.image_shards.manifest_file import Row
from mlimages_jax.image_shards.outcome import OK
from mlimages_jax.image_shards.reader import RecordPlace, ShardFolder
from mlimages_jax.labels.image_names import decode_name
from mlimages_jax.labels.lists import LabelList

from .places import Place, Places

_ELSEWHERE = -1
_BLOCK = 65_536  # names hashed at a time


class ShardPlace(NamedTuple):
    """A record of a shard.

    Attributes:
        path: Path or URL of the file of records.
        record: Number of the record.
        key: The `_keys` of its image's name.
    """

    path: str
    record: int
    key: int

    def read(self) -> bytes:
        """Reads the image, see `Place`; an OSError if it is not that of the manifest."""
        name, image = RecordPlace(self.path, self.record).read()
        if _keys([name])[0] != self.key:
            raise OSError(
                f"record {self.record} of {self.path} is another image ({name[:200]!r}): the file "
                "belongs to another manifest; copy both again from where they were written"
            )
        return image


class ShardedImages(NamedTuple):
    """Images in shards, and perhaps elsewhere.

    Attributes:
        paths: Paths or URLs of the files of records.
        numbers: int32 [N], number of each image's file; -1: it is in none.
        records: int32 [N], number of each image's record.
        keys: uint64 [N], `_keys` of each image's name in the manifest.
        digest: Changes with the shards.
        elsewhere: The places of the other images.
    """

    paths: Sequence[str]
    numbers: np.ndarray
    records: np.ndarray
    keys: np.ndarray
    digest: str
    elsewhere: Places

    def place(self, number: int, name: str) -> Place:
        """Returns a place, see `Places`."""
        file = int(self.numbers[number])
        if file == _ELSEWHERE:
            return self.elsewhere.place(number, name)
        return ShardPlace(self.paths[file], int(self.records[number]), int(self.keys[number]))

    def count_elsewhere(self) -> int:
        """Returns the number of images that are in no shard."""
        return int((self.numbers == _ELSEWHERE).sum())

    def fingerprint(self) -> str:
        """Returns a digest of the shards, and the fingerprint of the other places."""
        return f"shards {self.digest}, {self.elsewhere.fingerprint()}"


class _Wanted:
    """The images of one list: for each distinct name, where it was found.

    Needs 68 bytes of memory an image: 1.2 GB for the 17.6 million of ML-Images.
    """

    def __init__(self, rows: LabelList):
        hashed = [
            digests(decode_name(rows[i].name) for i in range(start, min(start + _BLOCK, len(rows))))
            for start in range(0, len(rows), _BLOCK)
        ]
        self._keys, self._of_row = np.unique(np.concatenate(hashed), return_inverse=True)
        self._numbers = np.full(len(self._keys), _ELSEWHERE, np.int32)
        self._records = np.zeros(len(self._keys), np.int32)
        self._image_keys = np.zeros(len(self._keys), np.uint64)
        self._times = np.full(len(self._keys), -np.inf)

    def enter(self, rows: Sequence[Row], *, number: int) -> None:
        """Enters the images of a file; of two with one name the later counts, as in `Index`."""
        keys = find(self._keys, digests(row.image.file or "" for row in rows))
        image_keys = _keys([row.image.name for row in rows])
        for row, key, image_key in zip(rows, keys.tolist(), image_keys, strict=True):
            if key >= 0 and row.record is not None and row.image.time > self._times[key]:
                self._times[key], self._image_keys[key] = row.image.time, image_key
                self._numbers[key], self._records[key] = number, row.record

    def places(self, paths: Sequence[str], digest: str, elsewhere: Places) -> ShardedImages:
        """Returns the places of all rows."""
        row = self._of_row
        return ShardedImages(
            paths, self._numbers[row], self._records[row], self._image_keys[row], digest, elsewhere
        )


def _keys(names: Sequence[str]) -> np.ndarray:
    """Returns 64-bit hashes of names of images, uint64 [N]."""
    return digests(names).view(np.uint64)[::2]


def find_in_shards(
    folders: Sequence[str], lists: Mapping[str, LabelList], elsewhere: Mapping[str, Places]
) -> dict[str, Places]:
    """Finds the images of some lists in image shards.

    Args:
        folders: Paths or URLs of folders of image shards; none finds nothing.
        lists: The list of each split.
        elsewhere: The places of the images of each split that are in no shard.

    Returns:
        The places of each split's images.

    Raises:
        ImageShardError: A ValueError: a folder has no shards, or damaged ones.
        OSError: A folder cannot be read.
    """
    if not folders:
        return dict(elsewhere)
    opened = [ShardFolder(folder) for folder in folders]
    wanted = {split: _Wanted(rows) for split, rows in lists.items()}
    paths: list[str] = []
    for folder in opened:
        if not folder.repeated.judged:
            logging.warning(
                "%s: no run here came to its end: placeholders under many names count as images",
                folder.place,
            )  # fmt: skip
        for manifest in folder.manifests:
            if manifest.shard.file:
                rows = [row for row in folder.rows(manifest) if row.image.status == OK]
                for one in wanted.values():
                    one.enter(rows, number=len(paths))
                paths.append(folder.place.path(manifest.records))
    digest = " ".join(folder.fingerprint() for folder in opened)
    return {
        split: one.places(tuple(paths), digest, elsewhere[split]) for split, one in wanted.items()
    }
