# SPDX-License-Identifier: BSD-3-Clause
"""Reads the metadata files of a built data set and checks that they agree."""

import collections
import dataclasses
import json
import re
from collections.abc import Iterator, Sequence

from etils import epath

from mlimages_jax.data.dataset import DataSet, Shard
from mlimages_jax.files.checksums import sha256
from mlimages_jax.files.text_files import open_text, read_text
from mlimages_jax.labels.hierarchy import Hierarchy, HierarchyError
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.problems import Problem

CHECKSUMS = "checksums.txt"
SKIPPED = "skipped.tsv"
_CHECKSUM_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^/\\]+)")
_STRAY = re.compile(r"\.array_record|^unfinished-|\.unfinished$")


@dataclasses.dataclass(frozen=True)
class BuiltSet:
    """A version folder of `tfds_builders.ml_images`, or of a builder derived from it.

    Attributes:
        folder: The version folder, which contains everything.
        shards: Shards of each split.
        num_classes: Number of classes of the labels.
        max_labels: Maximum number of labels of one image.
        short_side: Maximum short side of the images in pixels; None: they were not shrunk.
        closed: Whether the labels include all ancestors of every class.
        hierarchy: Hierarchy of the classes; None if its file is malformed.
        skipped: Number of images without a record, by split.
    """

    folder: epath.Path
    shards: dict[str, list[Shard]]
    num_classes: int
    max_labels: int
    short_side: int | None
    closed: bool
    hierarchy: Hierarchy | None
    skipped: dict[str, int]

    @classmethod
    def open(cls, folder: epath.Path) -> "BuiltSet":
        """Reads the metadata.

        Raises:
            FileNotFoundError: The folder is not a built data set; the message says how to make one.
            PrepareError: Its metadata is damaged.
        """
        try:
            data_set = DataSet.open(folder)
            metadata = json.loads(read_text(folder / "metadata.json"))
            shards = data_set.shards()
            short_side, skipped = metadata["short_side"], dict(metadata["skipped"])
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise PrepareError(
                f"{folder}: dataset_info.json or metadata.json is damaged ({error!r}): copy it "
                "again from where the set was built, or rebuild the set"
            ) from error
        try:
            hierarchy = Hierarchy.from_file(data_set.class_list)
        except HierarchyError:  # reported by `problems`, beside whatever else is wrong
            hierarchy = None
        return cls(
            folder=folder,
            shards=shards,
            num_classes=data_set.num_classes,
            max_labels=data_set.max_labels,
            short_side=short_side,
            closed=metadata.get("labels") == "closed",
            hierarchy=hierarchy,
            skipped=skipped,
        )

    def shards_of(self, splits: Sequence[str]) -> list[Shard]:
        """Returns the shards of some splits, or of all if none is named.

        Raises:
            PrepareError: There is no such split.
        """
        unknown = set(splits) - set(self.shards)
        if unknown:
            raise PrepareError(
                f"{self.folder} has no split {sorted(unknown)[0]!r}; it has {sorted(self.shards)}"
            )
        return [shard for split in splits or self.shards for shard in self.shards[split]]

    def problems(self, checksums: dict[str, str] | None) -> Iterator[Problem]:
        """Yields the problems that can be found without reading the records.

        Args:
            checksums: SHA-256 by file name; None: do not check hashes.
        """
        yield from self._file_problems(checksums or {})
        yield from self._metadata_problems()

    def _file_problems(self, checksums: dict[str, str]) -> Iterator[Problem]:
        expected = {shard.path.name for shards in self.shards.values() for shard in shards}
        for name in sorted(path.name for path in self.folder.iterdir()):
            if _STRAY.search(name) and name not in expected:
                message = "not listed in dataset_info.json; an interrupted build may have left it"
                yield Problem(name, None, "", "stray_file", message)
        # The shards themselves are hashed while their records are checked, by ShardChecker.
        for name in sorted(set(checksums) - expected):
            path = self.folder / name
            if not path.is_file():
                yield Problem(name, None, "", "hash", "listed in checksums.txt but missing")
            elif sha256(path) != checksums[name]:
                yield Problem(name, None, "", "hash", "its SHA-256 differs from checksums.txt")

    def _metadata_problems(self) -> Iterator[Problem]:
        if self.hierarchy is None:
            yield Problem("dictionary.txt", None, "", "metadata", "the file is malformed")
        elif len(self.hierarchy) != self.num_classes:
            message = f"num_classes is {self.num_classes}, dictionary.txt has {len(self.hierarchy)}"
            yield Problem("metadata.json", None, "", "metadata", message)
        counts = collections.Counter(split for split, _ in read_skipped(self.folder))
        for split, promised in self.skipped.items():
            if counts[split] != promised:
                message = f"{promised} skipped in {split}, but skipped.tsv lists {counts[split]}"
                yield Problem("metadata.json", None, "", "metadata", message)


def read_skipped(folder: epath.Path) -> Iterator[tuple[str, str]]:
    """Yields split and name of the skipped images; nothing if there is no such file."""
    path = folder / SKIPPED
    if path.exists():
        # A damaged name must not end a check that looks for damage.
        text = path.read_bytes().decode("utf-8", "replace")
        for line in text.splitlines()[1:]:  # without the header
            split, _, rest = line.partition("\t")
            yield split, rest.partition("\t")[0]


def read_checksums(folder: epath.Path) -> dict[str, str] | None:
    """Returns the SHA-256 of files by name; None if an older builder did not write the file.

    Raises:
        PrepareError: A line is malformed.
    """
    path = folder / CHECKSUMS
    if not path.exists():
        return None
    checksums = {}
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            match = _CHECKSUM_LINE.fullmatch(line.removesuffix("\n"))
            if match is None:
                raise PrepareError(
                    f"{path}:{number}: not a line of sha256sum: {line[:80]!r}; copy the file again "
                    "from where the set was built, or delete it to check without hashes"
                )
            checksums[match[2]] = match[1]
    return checksums
