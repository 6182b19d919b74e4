# SPDX-License-Identifier: BSD-3-Clause
"""Records of a built data set: read by position from its files, and parsed."""

import bisect
import dataclasses
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from array_record.python import array_record_data_source
from etils import epath
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

from mlimages_jax.data import NO_LABEL
from mlimages_jax.files.remote import is_remote

_PASSING = (  # parts of error messages that do not mean that the file is damaged
    "CANCELLED", "DEADLINE_EXCEEDED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "Too many open",
    # The first letter is missing because libraries differ in its case.
    "UNAUTHENTICATED", "UNAVAILABLE", "annot allocate memory",
)  # fmt: skip
_LONGEST_REASON = 200  # characters
_AT_ONCE, _BYTES_AT_ONCE = 64, 4 << 20  # records that are read together


class DataSetError(ValueError):
    """Raised when a built data set lacks a split or a file, or its metadata are invalid."""


class DamagedRecordError(DataSetError):
    """Raised for a record that cannot be read; the message names it and its file."""


class RandomAccess(Protocol):
    """Serialised records by position, such as a list of bytes."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> bytes: ...


class Records:
    """Serialised records of ArrayRecord files by position; safe to read from many threads."""

    def __init__(self, paths: list[str]):
        self.paths = paths
        self._source = array_record_data_source.ArrayRecordDataSource(paths)
        self._files = [os.path.basename(path).partition("[")[0] for path in paths]  # noqa: PTH119  # may be URLs
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

    def blocks(self, indices: Sequence[int], *, threads: int = 1) -> Iterator[Sequence[int]]:
        """Yields the indices in blocks to `read`, in order and one for each thread if they suffice.

        For every call array_record makes lists as long as the file has records: one by one, records
        of a file with 136,000 take 0.7 ms each, 64 at once 0.03 (docs/benchmarks/rehearsal.md).
        Large records, of which files have fewer, are in smaller blocks: these have to be in memory.

        Raises:
            OSError: A file is missing.
        """
        num_bytes = sum(epath.Path(path).stat().length for path in self.paths)
        fitting = _BYTES_AT_ONCE * len(self) // max(1, num_bytes)
        size = max(1, min(_AT_ONCE, fitting, len(indices) // threads))
        return (indices[i : i + size] for i in range(0, len(indices), size))

    def read(self, indices: Sequence[int]) -> Sequence[bytes | Exception]:
        """Reads several records; one that `[index]` cannot read is the exception that it raises."""
        try:
            found: Sequence[bytes] = self._source.__getitems__(indices)
        except (RuntimeError, ValueError):  # one of them is damaged
            found = []
        if found and all(found):
            return found
        return [self._read_one(index) for index in indices]

    def _read_one(self, index: int) -> bytes | Exception:
        try:
            return self[index]
        except (RuntimeError, ValueError) as error:
            return error

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


def read_in_place(path: epath.PathLike) -> bool:
    """Returns whether array_record can read a file where it is: on a disk, or gs://."""
    return not is_remote(path) or os.fspath(path).startswith("gs://")


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
    # Padded to one length, because every new shape would compile another program.
    labels[:count] = record.labels
    confidences[:count] = record.confidences
    return {"labels": labels, "confidences": confidences}
