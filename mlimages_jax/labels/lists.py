# SPDX-License-Identifier: BSD-3-Clause
r"""Label lists: one image per line, its name followed by its labels, stored as sparse arrays.

    n04310904/n04310904_8388.JPEG   2367:1  2172:1       ImageNet id list
    https://farm2.staticflickr.com/2034/15_o.jpg\t3:1    URL list
    my photo.jpg\t940:0.8\t17                            image list
    n01440764/n01440764_10026.JPEG 0                     single class

`list_rows` defines the grammar, `image_names` the escaping of names with tabs, line ends and the
like. Blank lines are skipped (but count in line numbers); line ends of Windows and old Macs and a
UTF-8 byte order mark are accepted. Names may repeat. Labels with an exponent or more than 15 digits
are parsed one by one, at about the speed of plain Python; all others by NumPy.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from mlimages_jax.files.atomic import complete_file
from mlimages_jax.files.text_files import TextFileError, open_lines
from mlimages_jax.labels.list_chunks import Chunk, LineError, parse_chunk
from mlimages_jax.labels.list_rows import LabelRow, check_row

ANY_CLASS = 2**31 - 1  # number of classes to pass when only the names of a list matter
_CHUNK_BYTES = 1 << 20  # parsing a chunk needs arrays of about 20 times its size
_REMEMBERED_TEXTS = 10_000  # cached texts of confidences; annotated lists have only a few


class LabelListError(ValueError):
    """A row is unusable; the message has path, line number and what to do."""


@dataclasses.dataclass(frozen=True, eq=False)
class LabelList:
    """The labels of N images. Create it with `read_label_list` or `from_rows`, which validate.

    Attributes:
        names: uint8, the concatenated UTF-8 names.
        name_offsets: int64 [N + 1]; name i is names[name_offsets[i]:name_offsets[i + 1]].
        offsets: int64 [N + 1]; the labels of row i are offsets[i]:offsets[i + 1].
        classes: int32 [nnz], unique within a row, in file order.
        confidences: float32 [nnz], -1 (unknown) or in [0, 1].
    """

    names: np.ndarray
    name_offsets: np.ndarray
    offsets: np.ndarray
    classes: np.ndarray
    confidences: np.ndarray

    @classmethod
    def from_rows(
        cls, rows: Iterable[tuple[str, Sequence[int], Sequence[float]]], *, num_classes: int
    ) -> "LabelList":
        """Builds a list from (name, classes, confidences); checks what `read_label_list` checks.

        Raises:
            LabelListError: A row is invalid; the message has its number, from 0.
        """
        columns = _Columns()
        for number, row in enumerate(rows):
            try:
                name, classes, confidences = check_row(*row, num_classes=num_classes)
            except ValueError as error:
                raise LabelListError(f"row {number}: {error}") from error
            columns.add(Chunk([name.encode()], np.array([len(classes)]), classes, confidences))
        return columns.finish()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> LabelRow:
        if not -len(self) <= i < len(self):
            raise IndexError(f"row {i} of a label list of {len(self)} rows")
        return self._row(i % len(self))

    def name(self, i: int) -> str:
        """Returns the name of row i, 0 to N - 1; faster than the whole row."""
        return self.names[self.name_offsets[i] : self.name_offsets[i + 1]].tobytes().decode()

    def _row(self, i: int) -> LabelRow:
        labels = slice(self.offsets[i], self.offsets[i + 1])
        return LabelRow(self.name(i), self.classes[labels], self.confidences[labels])

    def __iter__(self) -> Iterator[LabelRow]:
        return map(self._row, range(len(self)))

    @property
    def max_labels(self) -> int:
        """Maximum number of labels of one row; 0 for an empty list."""
        return int(np.diff(self.offsets).max(initial=0))

    @property
    def nbytes(self) -> int:
        """Size of all arrays together, in bytes."""
        return sum(getattr(self, field.name).nbytes for field in dataclasses.fields(self))


def read_label_list(path: str | os.PathLike[str], *, num_classes: int) -> LabelList:
    """Reads a label list in any of the formats above; a file without rows gives an empty list.

    Args:
        path: The list file.
        num_classes: Classes must be in 0..num_classes - 1.

    Raises:
        LabelListError: A row has no name, a word that is not a label, a class out of range or
            repeated, a confidence that is neither -1 nor in [0, 1], or is longer than a megabyte;
            or the file is UTF-16. The message has the first bad line.
    """
    columns = _Columns()
    for block in iter_list_blocks(path):
        columns.add(block.parse(num_classes), fraction=block.fraction)
    return columns.finish()


def iter_label_list(path: str | os.PathLike[str], *, num_classes: int) -> Iterator["LabelList"]:
    """Reads a label list piece by piece, in memory that does not grow with its length.

    Args:
        path: The list file.
        num_classes: Classes must be in 0..num_classes - 1.

    Yields:
        Parts of some ten thousand rows, in order; together they are what `read_label_list` returns.

    Raises:
        LabelListError: As for `read_label_list`, when the row is reached.
    """
    for block in iter_list_blocks(path):
        yield block.rows(num_classes=num_classes)


class ListBlock(NamedTuple):
    """Some complete lines of a label list, not parsed yet.

    Attributes:
        path: Path of the list.
        line: Number of the first line, from 1.
        fraction: Fraction of the file up to its end.
        text: The lines, all with a line end.
    """

    path: Path
    line: int
    fraction: float
    text: bytes

    def rows(self, *, num_classes: int) -> LabelList:
        """Parses the rows; raises LabelListError like `read_label_list`."""
        columns = _Columns()
        columns.add(self.parse(num_classes))
        return columns.finish()

    def parse(self, num_classes: int) -> Chunk:
        """Parses the rows, as `rows` does, into lists of names."""
        try:
            return parse_chunk(self.text, num_classes)
        except LineError as error:
            line = self.line + error.line
            raise LabelListError(f"{self.path}:{line}: {error}") from error


def iter_list_blocks(path: str | os.PathLike[str]) -> Iterator[ListBlock]:
    """Reads a label list in blocks of a megabyte, to be parsed elsewhere.

    Raises:
        LabelListError: A line is longer than a block, or the file is UTF-16.
    """
    path = Path(path)
    line = 1
    with _open(path) as file:
        size = path.stat().st_size
        while chunk := file.read(_CHUNK_BYTES):
            chunk += file.readline(_CHUNK_BYTES)  # to the end of the line
            fraction = min(1, file.tell() / size)
            first, line = line, line + chunk.count(b"\n")
            if not chunk.endswith(b"\n"):
                if file.read(1):
                    raise LabelListError(
                        f"{path}:{line}: the line has more than {_CHUNK_BYTES} bytes; "
                        "is this the right file? A label list is a text file"
                    )
                chunk += b"\n"
            yield ListBlock(path, first, fraction, chunk)


def write_label_list(path: str | os.PathLike[str], label_list: LabelList) -> None:
    """Writes a list with tabs; reading it returns the same names, classes and float32 values."""
    with LabelListWriter(path) as writer:
        writer.write(label_list)


class LabelListWriter:
    """Writes an image list part by part; the file gets its final name once it is complete.

    A context manager. If its block raises, an existing file is kept.

    Args:
        path: Path of the list file.

    Raises:
        OSError: On entering, if the folder is missing or cannot be written to.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self._path = Path(path)
        self._texts = _Texts()

    def __enter__(self) -> "LabelListWriter":
        with contextlib.ExitStack() as stack:
            unfinished = stack.enter_context(complete_file(self._path))
            self._file = stack.enter_context(unfinished.open("w", encoding="utf-8", newline="\n"))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def write(self, rows: Iterable[LabelRow]) -> None:
        """Appends rows: a `LabelList`, or any others that `check_row` accepts."""
        text_of = self._texts.__getitem__
        for name, classes, confidences in rows:
            pairs = zip(classes.tolist(), map(text_of, confidences.tolist()), strict=True)
            labels = "\t".join([f"{class_}:{text}" for class_, text in pairs])
            # Write the tab even without labels: it marks a name with spaces as one name.
            self._file.write(f"{name}\t{labels}\n")

    def flush(self) -> None:
        """Writes everything so far to disk; raises OSError if the disk is full."""
        self._file.flush()
        os.fsync(self._file.fileno())


class _Texts(dict[float, str]):
    """Cache of the texts of confidences."""

    def __missing__(self, value: float) -> str:
        text = _shortest(value)
        if len(self) < _REMEMBERED_TEXTS:
            self[value] = text
        return text


def _shortest(value: float) -> str:
    """Returns the shortest decimal that the reader turns into the same float32."""
    texts = (f"{value:.{digits}g}" for digits in range(1, 10))
    return next(text for text in texts if np.float32(float(text)) == np.float32(value))


def _open(path: Path) -> BinaryIO:
    try:
        return open_lines(path)
    except TextFileError as error:
        raise LabelListError(str(error)) from error


class _Column:
    """A growing array. On Linux and macOS, memory not yet written to costs nothing."""

    def __init__(self, dtype: type) -> None:
        self._array: np.ndarray = np.empty(0, dtype)
        self._used = 0

    def extend(self, values: np.ndarray, fraction: float) -> None:
        """Appends `values`; `fraction` is the fraction of all values that have come after this."""
        end = self._used + len(values)
        if end > len(self._array):
            # An estimate of the final size from the part of the file read so far, so that a column
            # is copied rarely.
            grown = np.empty(int(1.25 * end / fraction) + 1, self._array.dtype)
            grown[: self._used] = self._array[: self._used]
            self._array = grown
        self._array[self._used : end] = values
        self._used = end

    def finish(self) -> np.ndarray:
        """Returns the array and releases the memory it did not need."""
        # NumPy would refuse if a debugger or profiler had a reference to the array.
        self._array.resize(self._used, refcheck=False)
        return self._array


class _Columns:
    """The growing arrays of a `LabelList`, with lengths instead of offsets."""

    def __init__(self) -> None:
        self._names, self._classes = _Column(np.uint8), _Column(np.int32)
        self._confidences = _Column(np.float32)
        self._name_lengths, self._label_counts = _Column(np.int64), _Column(np.int64)
        for lengths in (self._name_lengths, self._label_counts):
            # With a leading 0 the cumulative sum has the N + 1 offsets.
            lengths.extend(np.zeros(1, np.int64), fraction=1)

    def add(self, chunk: Chunk, *, fraction: float = 1) -> None:
        names = b"".join(chunk.names)
        self._names.extend(np.frombuffer(names, np.uint8), fraction)
        lengths = np.fromiter(map(len, chunk.names), np.int64, len(chunk.names))
        self._name_lengths.extend(lengths, fraction)
        self._label_counts.extend(chunk.label_counts, fraction)
        self._classes.extend(chunk.classes, fraction)
        self._confidences.extend(chunk.confidences, fraction)

    def finish(self) -> LabelList:
        name_offsets, offsets = self._name_lengths.finish(), self._label_counts.finish()
        return LabelList(
            names=self._names.finish(),
            name_offsets=np.cumsum(name_offsets, out=name_offsets),
            offsets=np.cumsum(offsets, out=offsets),
            classes=self._classes.finish(),
            confidences=self._confidences.finish(),
        )
