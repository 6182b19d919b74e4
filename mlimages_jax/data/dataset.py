# SPDX-License-Identifier: BSD-3-Clause
"""A built data set on disk: its metadata, its shards, and parsed records."""

import bisect
import concurrent.futures
import contextlib
import dataclasses
import itertools
import json
import os
import re
import resource
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from array_record.python import array_record_data_source
from etils import epath
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

from mlimages_jax.data import NO_LABEL
from mlimages_jax.data.local_copies import LocalCopyError, copy_shards, local_path
from mlimages_jax.data.streams import assign
from mlimages_jax.files.remote import is_remote
from mlimages_jax.files.text_files import read_text

HOW_TO_GET_DATA = """{folder} is not a built data set ({missing} is missing).
To pretrain on ML-Images you need these files in one folder, MANUAL_DIR:
  dictionary_and_semantic_hierarchy.txt   the 11,166 classes, from the ML-Images release (data/)
  train_image_list.txt                    one image per line: name<TAB>class:confidence<TAB>...
  val_image_list.txt                      the same for validation
  images/                                 the images that the lists name
docs/get_ml_images.md explains how to get them, command by command.
Then build the data set once:
  mlimages data build ml-images --manual-dir=MANUAL_DIR --data-dir={data_dir}
and start again with --config.data.folder=THE_FOLDER_IT_PRINTS.
Without any data, `--config=configs/quickstart.py` draws its own and trains in minutes."""


_READABLE = ("", "gs")  # schemes that array_record can read directly
_OTHER_FILES = 256  # open files other than those of records
_PASSING = (  # parts of error messages that do not mean that the file is damaged
    "CANCELLED", "DEADLINE_EXCEEDED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "Too many open",
    # The first letter is missing because libraries differ in its case.
    "UNAUTHENTICATED", "UNAVAILABLE", "annot allocate memory",
)  # fmt: skip
_LONGEST_REASON = 200  # characters
_THREADS = 32  # for checking that files exist


class DataSetError(ValueError):
    """Raised when a built data set lacks a split or a file, or its metadata are invalid."""


class DamagedRecordError(DataSetError):
    """Raised for a record that cannot be read; the message names it and its file."""


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
                -1) or orientation (neither exif nor stored), or if the library that reads such a
                folder is not installed.
        """
        folder = epath.Path(folder)
        folder = folder if is_remote(folder) else folder.expanduser()
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

    def records(self, split: str) -> "Records":
        """Opens the serialised records of a split for random access.

        Raises:
            DataSetError: If the data set has no such split, or a file is missing or cannot be
                copied.
        """
        (records,) = self.streams(split, count=1, served=range(1))
        return records

    def streams(self, split: str, *, count: int, served: Sequence[int]) -> list["Records"]:
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
            scheme = os.fspath(self.folder).partition("://")[0]
            if is_remote(self.folder) and scheme not in _READABLE:
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
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and needed > soft:
        if hard != resource.RLIM_INFINITY and needed > hard:
            raise DataSetError(
                f"{count:,} record files are read but only {hard:,} files may be open: raise the "
                "limit (ulimit -n), or use --config.data.order=streams on more hosts"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class RandomAccess(Protocol):
    """Serialised records by position, such as a list of bytes."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> bytes: ...


class Records:
    """Serialised records of ArrayRecord files by position; safe to read from many threads."""

    def __init__(self, paths: list[str]):
        self.paths = paths
        self._source = array_record_data_source.ArrayRecordDataSource(paths)
        self._files = [os.path.basename(path).partition("[")[0] for path in paths]  # noqa: PTH119
        lengths = [_length(path) for path in paths]
        self._starts = [0, *itertools.accumulate(lengths[:-1])]

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int, /) -> bytes:
        """Returns a serialised record.

        Raises:
            IndexError: If there is no such record.
            DamagedRecordError: If it cannot be read; others of its file may be intact.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        try:
            data = self._source[int(index)]
        except (RuntimeError, ValueError) as error:
            if any(word in str(error) for word in _PASSING):
                raise
            raise self.damaged(index, str(error)) from error
        if not data:  # how array_record reads some truncated files
            raise self.damaged(index, "it is empty")
        return data

    def name_of(self, index: int) -> str:
        """Returns the index of a record in its file and the name of the file."""
        shard = bisect.bisect_right(self._starts, index) - 1
        return f"record {index - self._starts[shard]} of {self._files[shard]}"

    def damaged(self, index: int, why: str) -> DamagedRecordError:
        """Returns the error to raise for a record."""
        shard = bisect.bisect_right(self._starts, index) - 1
        folder = os.path.dirname(self.paths[shard])  # noqa: PTH120  # may be a URL
        line = (why.strip().splitlines() or [""])[0][:_LONGEST_REASON]
        return DamagedRecordError(
            f"{self.name_of(index)} is damaged: {line}; mlimages data check "
            f"{folder} lists all damaged records"
        )


@dataclasses.dataclass(frozen=True)
class Record:
    """One parsed record: the stored JPEG and its sparse labels."""

    name: str
    jpeg: bytes
    labels: np.ndarray
    confidences: np.ndarray


def _length(path: str) -> int:
    """Returns the number of records of `file[0:3]`, here 3; 0 if the path does not say."""
    found = re.search(r"\[(\d+):(\d+)\]$", path)
    return int(found[2]) - int(found[1]) if found else 0


def record_at(records: RandomAccess, index: int) -> Record:
    """Reads and parses a record.

    Raises:
        DamagedRecordError: If it cannot be read, or was not written by a builder.
    """
    data = records[index]
    try:
        return parse_record(data)
    except (DecodeError, LookupError, ValueError, OverflowError) as error:
        why = f"it cannot be parsed: {error}"
        if isinstance(records, Records):
            raise records.damaged(index, why) from error
        raise DamagedRecordError(f"record {index} is damaged: {why}") from error


def parse_record(data: bytes) -> Record:
    """Parses a tf.train.Example of the builders; with protobuf alone, much faster than TFDS."""
    # Parsed directly: this takes 20 us a record, where TFDS's own parser takes 149.
    feature = tf_example_pb2.Example.FromString(data).features.feature
    return Record(
        name=feature["name"].bytes_list.value[0].decode(),
        jpeg=feature["image"].bytes_list.value[0],
        labels=np.array(feature["labels"].int64_list.value[:], np.int32),
        confidences=np.array(feature["confidences"].float_list.value[:], np.float32),
    )


def padded_labels(record: Record, *, max_labels: int) -> dict[str, np.ndarray]:
    """Returns labels int32 [L] and confidences float32 [L], padded with NO_LABEL and 0.

    Raises:
        ValueError: If the record has more than L labels: the metadata belong to another set.
    """
    count = len(record.labels)
    if count > max_labels:
        raise ValueError(
            f"{record.name} has {count} labels, but metadata.json promises at most {max_labels}: "
            "build the data set again"
        )
    labels = np.full(max_labels, NO_LABEL, np.int32)
    confidences = np.zeros(max_labels, np.float32)
    labels[:count] = record.labels
    confidences[:count] = record.confidences
    return {"labels": labels, "confidences": confidences}
