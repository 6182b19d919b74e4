# SPDX-License-Identifier: BSD-3-Clause
"""A built data set on disk: its metadata, and the files of its records."""

import concurrent.futures
import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from etils import epath

from mlimages_jax.data.local_copies import LocalCopyError, copy_shards, local_path
from mlimages_jax.data.records import DataSetError, Records, read_in_place
from mlimages_jax.data.streams import assign
from mlimages_jax.files import open_files
from mlimages_jax.files.remote import is_remote
from mlimages_jax.files.text_files import read_text

HOW_TO_GET_DATA = """{folder} is not a built data set ({missing} is missing).
If you have built one, give the folder that `mlimages data build` or `import` printed, such as
data/mine/released_320/1.0.0. If not: `mlimages data import FOLDER --dry-run` looks at images of
your own. For ML-Images, put these files into one folder, MANUAL_DIR:
  dictionary_and_semantic_hierarchy.txt   the 11,166 classes, from the ML-Images release (data/)
  train_image_list.txt                    one image per line: name<TAB>class:confidence<TAB>...
  val_image_list.txt                      the same for validation
  images/ or shards/                      the images that the lists name
docs/get_ml_images.md explains how to get them, command by command.
Then build the data set once:
  mlimages data build ml-images --manual-dir=MANUAL_DIR --data-dir={data_dir}
Without any data, `mlimages train --config=quickstart --workdir=W` draws its own and trains on it in
minutes."""


_FILES_OF_ALL_SPLITS = 2**16  # as other splits may be read at the same time
_OTHER_FILES = 256  # open files other than those of records: libraries, logs, sockets
_THREADS = 32  # for checking that files exist


class Shard(NamedTuple):
    """A file of records.

    Attributes:
        split: Name of its split.
        number: Index among the files of the split, from 0.
        path: Path of the file.
        num_records: Number of records.
    """

    split: str
    number: int
    path: epath.Path
    num_records: int


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A built data set.

    Attributes:
        folder: The version folder, e.g. data/ml_images/released_320/1.0.0.
        num_classes: Number of classes, C.
        max_labels: Maximum number of labels of an image, L.
        missing_labels: Target of classes missing from an image's labels: 0.0 (absent) or -1.0
            (nobody looked).
        copy_to: A local folder to which record files are copied before reading; "" reads them in
            place.
        orientation: "exif" if the builder applied the EXIF orientation, else "stored".
    """

    folder: epath.Path
    num_classes: int
    max_labels: int
    missing_labels: float
    copy_to: str = ""
    orientation: str = "stored"

    @classmethod
    def open(cls, folder: epath.PathLike, *, copy_to: str = "") -> "DataSet":
        """Reads the metadata from a local folder, gs://, or anything else that `epath` reads.

        Raises:
            FileNotFoundError: If the folder is not a built data set; explains how to build one.
            DataSetError: If the metadata have an invalid value for missing labels (neither 0 nor
                -1) or orientation (neither exif nor stored), if the library that reads such a
                folder is not installed, or if its path is not UTF-8.
        """
        folder = epath.Path(folder)
        folder = folder if is_remote(folder) else folder.expanduser()
        try:
            os.fspath(folder).encode()
        except UnicodeEncodeError:
            raise DataSetError(
                f"{os.fspath(folder)!r}: ArrayRecord files need a path in UTF-8: rename the folder"
            ) from None
        for name in ("dataset_info.json", "metadata.json", "dictionary.txt"):
            try:
                there = (folder / name).exists()
            except ImportError as error:
                raise DataSetError(
                    f"{folder}: {error}. For gs://: pip install -e '.[gcs]' in the clone"
                ) from error
            if not there:
                data_dir = folder.parents[2] if len(folder.parents) > 2 else "data"
                raise FileNotFoundError(
                    HOW_TO_GET_DATA.format(folder=folder, missing=name, data_dir=data_dir)
                )
        with _damage_named(folder / "metadata.json") as metadata:
            num_classes, max_labels = int(metadata["num_classes"]), int(metadata["max_labels"])
        missing_labels = metadata.get("unlisted", 0)  # sets of older builders do not have this key
        if missing_labels not in (0, -1):
            raise DataSetError(
                f"{folder / 'metadata.json'}: unlisted={missing_labels!r} is neither 0 (absent) "
                "nor -1 (unknown): build the data set again"
            )
        orientation = metadata.get("orientation", "stored")  # nor this one
        if orientation not in ("exif", "stored"):
            raise DataSetError(
                f"{folder / 'metadata.json'}: orientation={orientation!r} is neither exif nor "
                "stored: build the data set again"
            )
        return cls(
            folder,
            num_classes,
            max_labels,
            missing_labels=float(missing_labels),
            copy_to=copy_to,
            orientation=orientation,
        )

    @property
    def class_list(self) -> epath.Path:
        """The class list, for `Hierarchy.from_file`."""
        return self.folder / "dictionary.txt"

    def shards(self) -> dict[str, list["Shard"]]:
        """Returns the files of each split, as listed in dataset_info.json."""
        with _damage_named(self.folder / "dataset_info.json") as info:
            return {entry["name"]: self._shards_of(info, entry) for entry in info["splits"]}

    def _shards_of(self, info: dict[str, Any], split: dict[str, Any]) -> list["Shard"]:
        lengths = [int(length) for length in split["shardLengths"]]
        names = {"DATASET": info["name"], "SPLIT": split["name"], "FILEFORMAT": info["fileFormat"]}
        shards = []
        for number, length in enumerate(lengths):
            shard_of = f"{number:05d}-of-{len(lengths):05d}"
            file = split["filepathTemplate"].format(**names, SHARD_X_OF_Y=shard_of)
            shards.append(Shard(split["name"], number, self.folder / file, length))
        return shards

    def shards_of(self, split: str) -> list["Shard"]:
        """Returns the files of a split.

        Raises:
            DataSetError: If the data set has no such split.
        """
        shards = self.shards()
        if split not in shards:
            raise DataSetError(
                f"{self.folder} has no split {split!r}; it has {sorted(shards)}. Name one of them "
                "(config.data.train_split, config.data.split, config.evaluation.splits), build the "
                "set with its list or archive of that split, or, to train without evaluation, give "
                "--config.evaluation.splits='()'"
            )
        return shards[split]

    def num_records(self, split: str) -> int:
        """Returns the number of records of a split, from dataset_info.json alone.

        Raises:
            DataSetError: If the data set has no such split.
        """
        return sum(shard.num_records for shard in self.shards_of(split))

    def records(self, split: str) -> Records:
        """Opens the serialised records of a split for random access.

        Raises:
            DataSetError: If the data set has no such split, or a file is missing or cannot be
                copied.
        """
        (records,) = self.streams(split, count=1, served=range(1))
        return records

    def streams(self, split: str, *, count: int, served: Sequence[int]) -> list[Records]:
        """Opens some of `count` fixed parts of a split; other parts are neither copied nor opened.

        Parts consist of entire files; `streams.assign` assigns files to parts.

        Args:
            split: Name of the split.
            count: Number of parts.
            served: Indices of the parts to open.

        Raises:
            DataSetError: See `records`; also if there are fewer files than parts.
        """
        shards = self.shards_of(split)
        if len(shards) < count:
            raise DataSetError(
                f"{self.folder} has {len(shards)} files of {split!r}, too few for {count} streams "
                "(config.data.order=streams needs one per group: batch_size / group_size). Build "
                f"the set again with --num-shards={count} or a multiple, or use "
                "--config.data.order=global"
            )
        # All processes compute the same assignment, and each opens its own parts only.
        parts = assign([shard.num_records for shard in shards], count)
        mine = [[shards[number] for number in parts[stream]] for stream in served]
        self._make_ready([shard for part in mine for shard in part])
        return [Records([self._where(shard) for shard in part]) for part in mine]

    def _make_ready(self, shards: Sequence["Shard"]) -> None:
        """Copies the files, or checks that they exist; raises DataSetError."""
        if self.copy_to:
            try:
                copy_shards([shard.path for shard in shards], self.copy_to)
            except (LocalCopyError, FileNotFoundError) as error:
                raise DataSetError(str(error)) from error
        else:
            if not read_in_place(self.folder):
                scheme = os.fspath(self.folder).partition("://")[0]
                raise DataSetError(
                    f"{self.folder}: records cannot be read from {scheme}:// directly: set "
                    "config.data.copy_to to a folder on a local disk, to copy them there once"
                )
            # array_record does not open a file whose number of records is given, so a missing one
            # would only show in the middle of training. On object storage each check is a request:
            # many at a time.
            with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
                there = list(pool.map(lambda shard: shard.path.exists(), shards))
            if not all(there):
                raise DataSetError(
                    f"{shards[there.index(False)].path} is missing, and {there.count(False) - 1} "
                    f"other files of {len(shards)}: copy them from where the set was built, or "
                    "build it again"
                )
        _allow_open_files(len(shards))

    def _where(self, shard: "Shard") -> str:
        """Formats path and number of records for array_record, which then need not open it."""
        path = local_path(shard.path, self.copy_to) if self.copy_to else shard.path
        return f"{os.fspath(path)}[0:{shard.num_records}]"


@contextlib.contextmanager
def _damage_named(path: epath.Path) -> Iterator[dict[str, Any]]:
    """Yields the contents of a JSON file; errors in it, or in using it, name the file.

    Raises:
        DataSetError: If it is not JSON, or lacks something.
    """
    try:
        yield json.loads(read_text(path))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataSetError(
            f"{path} is damaged ({type(error).__name__}: {error}): restore it from a copy, or "
            "build the data set again"
        ) from error


def _allow_open_files(count: int) -> None:
    """Raises the limit of open files, because array_record keeps every record file open.

    Raises:
        DataSetError: If the system does not allow this process so many.
    """
    needed = count + _OTHER_FILES
    allowed = open_files.allow(max(needed, _FILES_OF_ALL_SPLITS))
    if allowed < needed:
        raise DataSetError(
            f"{count:,} record files are read but only {allowed:,} files may be open: raise the "
            "limit (ulimit -n), or use --config.data.order=streams on more hosts"
        )
