# SPDX-License-Identifier: BSD-3-Clause
"""A built data set on disk: its metadata, its shards, and one parsed record."""

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
from mlimages_jax.data.streams import cut
from mlimages_jax.files.text_files import read_text

HOW_TO_GET_DATA = """{folder} is not a built data set ({missing} is missing).
To pretrain on ML-Images you need three things in one folder, MANUAL_DIR:
  dictionary_and_semantic_hierarchy.txt   the 11,166 classes, of the ML-Images release (data/)
  train_image_list.txt                    one image a line: name<TAB>class:confidence<TAB>...
  val_image_list.txt                      the same for validation
  images/                                 the images that the lists name
docs/get_ml_images.md says how to get them, command by command.
Then build the data set once:
  mlimages data build ml-images --manual-dir=MANUAL_DIR --data-dir={data_dir}
and start again with --config.data.folder=THE_FOLDER_IT_PRINTS.
Without any data, `--config=configs/quickstart.py` draws its own and trains in minutes."""


_READABLE = ("", "gs")  # schemes that array_record reads by itself
_OTHER_FILES = 256  # open files beside those of records
_PASSING = (  # words of errors that say nothing about the file
    "CANCELLED", "DEADLINE_EXCEEDED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "Too many open",
    "UNAUTHENTICATED", "UNAVAILABLE", "annot allocate memory",
)  # fmt: skip
_LONGEST_REASON = 200  # characters
_THREADS = 32  # that look whether files are there


class DataSetError(ValueError):
    """A built data set that lacks a split or a file, or whose metadata cannot be."""


class DamagedRecordError(DataSetError):
    """A record that cannot be read; the message names it and its file."""


class Shard(NamedTuple):
    """A file of records.

    Attributes:
        split: its split's name.
        number: among the files of the split, from 0.
        path: of the file.
        num_records: in it.
    """

    split: str
    number: int
    path: epath.Path
    num_records: int


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A built data set.

    Attributes:
        folder: the version folder, e.g. data/ml_images/released_320/1.0.0.
        num_classes: C.
        max_labels: the largest number of labels of one image, L.
        unlisted: the target of a class that an image does not list: 0.0, it is absent, or -1.0,
            nobody looked.
        copy_to: a local folder to which files of records are copied before they are read; empty:
            they are read where they are.
        orientation: "exif" where the builder turned the images upright, "stored" where it did not.
    """

    folder: epath.Path
    num_classes: int
    max_labels: int
    unlisted: float
    copy_to: str = ""
    orientation: str = "stored"

    @classmethod
    def open(cls, folder: epath.PathLike, *, copy_to: str = "") -> "DataSet":
        """Reads the metadata, from a local folder or from gs:// and what else `epath` reads.

        Raises:
            FileNotFoundError: when the folder is no built data set; says how to make one.
            DataSetError: when its metadata say something else than 0 or -1 about unlisted classes,
                or than exif or stored about orientation; or what reads such a folder is not
                installed.
        """
        folder = epath.Path(folder)
        folder = folder if "://" in os.fspath(folder) else folder.expanduser()
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
        unlisted = metadata.get("unlisted", 0)  # sets built before this was a choice lack it
        if unlisted not in (0, -1):
            raise DataSetError(
                f"{folder / 'metadata.json'}: unlisted={unlisted!r} is neither 0 (absent) nor -1 "
                "(unknown): build the data set again"
            )
        orientation = metadata.get("orientation", "stored")  # older sets lack it too
        if orientation not in ("exif", "stored"):
            raise DataSetError(
                f"{folder / 'metadata.json'}: orientation={orientation!r} is neither exif nor "
                "stored: build the data set again"
            )
        return cls(
            folder,
            num_classes,
            max_labels,
            unlisted=float(unlisted),
            copy_to=copy_to,
            orientation=orientation,
        )

    @property
    def dictionary(self) -> epath.Path:
        """The category file, for `Hierarchy.from_file`."""
        return self.folder / "dictionary.txt"

    def shards(self) -> dict[str, list["Shard"]]:
        """The files of each split, as dataset_info.json promises them."""
        with _damage_named(self.folder / "dataset_info.json") as info:
            return {entry["name"]: self._shards_of(info, entry) for entry in info["splits"]}

    def _shards_of(self, info: dict[str, Any], split: dict[str, Any]) -> list["Shard"]:
        lengths = [int(length) for length in split["shardLengths"]]
        names = {"DATASET": info["name"], "SPLIT": split["name"], "FILEFORMAT": info["fileFormat"]}
        shards = []
        for number, length in enumerate(lengths):
            place = f"{number:05d}-of-{len(lengths):05d}"
            file = split["filepathTemplate"].format(**names, SHARD_X_OF_Y=place)
            shards.append(Shard(split["name"], number, self.folder / file, length))
        return shards

    def shards_of(self, split: str) -> list["Shard"]:
        """The files of a split.

        Raises:
            DataSetError: when the data set has no such split.
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
        """How many records a split has, by dataset_info.json alone.

        Raises:
            DataSetError: when the data set has no such split.
        """
        return sum(shard.num_records for shard in self.shards_of(split))

    def records(self, split: str) -> "Records":
        """The serialised records of a split, random access.

        Raises:
            DataSetError: when the data set has no such split, a file is missing or cannot be
                copied.
        """
        (records,) = self.streams(split, count=1, served=range(1))
        return records

    def streams(self, split: str, *, count: int, served: Sequence[int]) -> list["Records"]:
        """Some of `count` fixed parts of a split, each of whole files; copies and opens no others.

        Which files go together is decided by `streams.cut`.

        Args:
            split: its name.
            count: of parts.
            served: the numbers of those wanted.

        Raises:
            DataSetError: as for `records`, and for fewer files than parts.
        """
        shards = self.shards_of(split)
        if len(shards) < count:
            raise DataSetError(
                f"{self.folder} has {len(shards)} files of {split!r}, too few for {count} streams "
                "(config.data.order=streams has one a group: batch_size / group_size). Build the "
                f"set again with --num-shards={count} or a multiple, or use "
                "--config.data.order=global"
            )
        parts = cut([shard.num_records for shard in shards], count)
        mine = [[shards[number] for number in parts[stream]] for stream in served]
        self._make_ready([shard for part in mine for shard in part])
        return [Records([self._where(shard) for shard in part]) for part in mine]

    def _make_ready(self, shards: Sequence["Shard"]) -> None:
        """Copies the files, or sees that they are there; raises DataSetError."""
        if self.copy_to:
            try:
                copy_shards([shard.path for shard in shards], self.copy_to)
            except (LocalCopyError, FileNotFoundError) as error:
                raise DataSetError(str(error)) from error
        else:
            scheme = os.fspath(self.folder).partition("://")[0]
            if "://" in os.fspath(self.folder) and scheme not in _READABLE:
                raise DataSetError(
                    f"{self.folder}: records cannot be read from {scheme}:// directly: set "
                    "config.data.copy_to to a folder of a local disk, and they are copied once"
                )
            with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
                there = list(pool.map(lambda shard: shard.path.exists(), shards))
            if not all(there):
                raise DataSetError(
                    f"{shards[there.index(False)].path} is missing, and {there.count(False) - 1} "
                    f"others of {len(shards)} files: get them from where the set was built, or "
                    "build it again"
                )
        _allow_open_files(len(shards))

    def _where(self, shard: "Shard") -> str:
        """A file and its records as array_record takes them; so it need not open it to count."""
        path = local_path(shard.path, self.copy_to) if self.copy_to else shard.path
        return f"{os.fspath(path)}[0:{shard.num_records}]"


@contextlib.contextmanager
def _damage_named(path: epath.Path) -> Iterator[dict[str, Any]]:
    """What a JSON file of a set says; an error in it, or in using it, names the file.

    Raises:
        DataSetError: it is no JSON, or lacks something.
    """
    try:
        yield json.loads(read_text(path))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataSetError(
            f"{path} is damaged ({type(error).__name__}: {error}): bring it back from a copy, or "
            "build the data set again"
        ) from error


def _allow_open_files(count: int) -> None:
    """Raises the limit of open files, of which array_record keeps one for every file of records.

    Raises:
        DataSetError: when the system does not let this process have so many.
    """
    needed = count + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and needed > soft:
        if hard != resource.RLIM_INFINITY and needed > hard:
            raise DataSetError(
                f"{count:,} files of records are read and {hard:,} files may be open: raise the "
                "limit (ulimit -n), or use --config.data.order=streams on more hosts"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class RandomAccess(Protocol):
    """Serialised records by position; a list of bytes is one."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> bytes: ...


class Records:
    """Serialised records of ArrayRecord files by position; may be read from many threads."""

    def __init__(self, paths: list[str]):
        self.paths = paths
        self._source = array_record_data_source.ArrayRecordDataSource(paths)
        self._files = [os.path.basename(path).partition("[")[0] for path in paths]  # noqa: PTH119
        lengths = [_length(path) for path in paths]
        self._starts = [0, *itertools.accumulate(lengths[:-1])]

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int, /) -> bytes:
        """A serialised record.

        Raises:
            IndexError: there is no such record.
            DamagedRecordError: it cannot be read; others of its file may be whole.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        try:
            data = self._source[int(index)]
        except (RuntimeError, ValueError) as error:
            if any(word in str(error) for word in _PASSING):
                raise
            raise self.damaged(index, str(error)) from error
        if not data:  # all that is left of some truncated files
            raise self.damaged(index, "it is empty")
        return data

    def name_of(self, index: int) -> str:
        """Which record of which file it is, counted from 0."""
        shard = bisect.bisect_right(self._starts, index) - 1
        return f"record {index - self._starts[shard]} of {self._files[shard]}"

    def damaged(self, index: int, why: str) -> DamagedRecordError:
        """The error to raise for a record."""
        shard = bisect.bisect_right(self._starts, index) - 1
        folder = os.path.dirname(self.paths[shard])  # noqa: PTH120  # may be a URL
        line = (why.strip().splitlines() or [""])[0][:_LONGEST_REASON]
        return DamagedRecordError(
            f"{self.name_of(index)} is damaged: {line}; mlimages data check "
            f"{folder} lists all that is"
        )


@dataclasses.dataclass(frozen=True)
class Record:
    """One parsed record: the stored JPEG and its sparse labels."""

    name: str
    jpeg: bytes
    labels: np.ndarray
    confidences: np.ndarray


def _length(path: str) -> int:
    """Of a path as array_record takes it: `file[0:3]` has 3 records; 0 where it does not say."""
    found = re.search(r"\[(\d+):(\d+)\]$", path)
    return int(found[2]) - int(found[1]) if found else 0


def record_at(records: RandomAccess, index: int) -> Record:
    """Reads and parses a record.

    Raises:
        DamagedRecordError: it cannot be read, or is none that a builder has written.
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
    """Parses a tf.train.Example of the ml_images builder; the protobuf alone, without TFDS."""
    feature = tf_example_pb2.Example.FromString(data).features.feature
    return Record(
        name=feature["name"].bytes_list.value[0].decode(),
        jpeg=feature["image"].bytes_list.value[0],
        labels=np.array(feature["labels"].int64_list.value[:], np.int32),
        confidences=np.array(feature["confidences"].float_list.value[:], np.float32),
    )


def padded_labels(record: Record, *, max_labels: int) -> dict[str, np.ndarray]:
    """Labels int32 [L] and confidences float32 [L], filled up with NO_LABEL and 0.

    Raises:
        ValueError: when the record has more than L labels: the data set's metadata are not its own.
    """
    count = len(record.labels)
    if count > max_labels:
        raise ValueError(
            f"{record.name} has {count} labels, metadata.json promises at most {max_labels}: "
            "build the data set again"
        )
    labels = np.full(max_labels, NO_LABEL, np.int32)
    confidences = np.zeros(max_labels, np.float32)
    labels[:count] = record.labels
    confidences[:count] = record.confidences
    return {"labels": labels, "confidences": confidences}
