# SPDX-License-Identifier: BSD-3-Clause
"""The images of a built set, as an `ImageSource`."""

import collections
import hashlib
import threading
from typing import Any

import numpy as np

from mlimages_jax.data import fingerprint
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.images.header import BadImage
from mlimages_jax.data.records import DamagedRecordError, Record, record_at

_REMEMBERED = 65_536  # names, which are stored inside the records


class ImagesOfSet:
    """The records of one split of a built set.

    The names and labels of recently read records are cached, so that asking for them after `read`
    does not read the record again.
    """

    built = True
    has_labels = True

    def __init__(self, data: DataSet, split: str):
        self._records = data.records(split)
        parts = fingerprint.fingerprint(data, [split])
        info = (data.folder / "dataset_info.json").read_bytes() + repr(parts).encode()
        self._digest = hashlib.sha256(info).hexdigest()
        self._seen: collections.OrderedDict[int, tuple[str, str]] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        # For worker processes: a lock cannot be sent, and what was seen here is of no use there.
        return self.__dict__ | {"_lock": None, "_seen": collections.OrderedDict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"_lock": threading.Lock()})

    def __len__(self) -> int:
        return len(self._records)

    @property
    def names(self) -> "NamesOfSet":
        """Names as they were when the set was built."""
        return NamesOfSet(self)

    @property
    def digest(self) -> str:
        """A digest of the set's description and the split."""
        return self._digest

    def read(self, index: int) -> bytes:
        """See `ImageSource`."""
        try:
            return self._record(index).jpeg
        except DamagedRecordError as error:
            raise BadImage("damaged_record", str(error)) from error

    def identity(self, index: int) -> list[str | int]:
        """Returns the digest of the set, and the position."""
        return [self._digest, index]

    def path(self, index: int) -> None:
        """See `ImageSource`."""

    def labels(self, index: int) -> str:
        """See `ImageSource`."""
        return self.name_and_labels(index)[1]

    def name_and_labels(self, index: int) -> tuple[str, str]:
        """Returns the name of a record, and its labels as text."""
        with self._lock:
            seen = self._seen.get(index)
        if seen is None:
            try:
                record = self._record(index)
            except DamagedRecordError:  # `read` reports the reason
                return self._records.name_of(index), ""
            seen = record.name, _as_text(record)
        return seen

    def _record(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        record = record_at(self._records, index)
        with self._lock:
            self._seen[index] = record.name, _as_text(record)
            if len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
        return record


class NamesOfSet:
    """Names by position, read on demand."""

    def __init__(self, images: ImagesOfSet):
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int, /) -> str:
        return self._images.name_and_labels(index)[0]


def _as_text(record: Record) -> str:
    """Formats labels as in a label list, with the fewest digits that keep each float32 exact."""
    pairs = zip(record.labels, record.confidences, strict=True)
    return "\t".join(f"{c}:{np.format_float_positional(v, trim='-')}" for c, v in pairs)
