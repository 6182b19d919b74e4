# SPDX-License-Identifier: BSD-3-Clause
"""Reads a model's predictions from Parquet files and keeps only the confident ones.

A file has a row per image and these columns; others are not read:

    name     string
    scores   list of floats, 0 to 1: one per class of the model (dense), or one per entry of
             `classes` (sparse)
    classes  list of integers, the classes of these scores (sparse); omit it in dense files
    label    integer, the image's own class; omit it if a list gives the class

A row whose scores are null is an image for which the model made no prediction.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mlimages_jax.prepare import PrepareError

_VALUES_AT_ONCE = 1 << 22  # scores in memory; 17 MB as float32
_ROWS_AT_ONCE = 1 << 16
_BUFFER_BYTES = 1 << 20  # bounds the memory, however large a row group is
_MAX_SCORE = 1.001  # a softmax in half precision may end up slightly above 1


class SurePredictions(NamedTuple):
    """The confident predictions of N images that have scores.

    Attributes:
        num_images: N.
        names: UTF-8 names of the N images; None if there are labels.
        labels: int64 [N], the images' own classes, -1 for null; None without such a column.
        images: int64 [n], index of an image, 0 to N - 1, ...
        classes: int64 [n], ... and a class of the model whose score for the image is above the
            posterior; no pair repeats.
        without_scores: Number of rows left out because they have no scores.
    """

    num_images: int
    names: list[bytes] | None
    labels: np.ndarray | None
    images: np.ndarray
    classes: np.ndarray
    without_scores: int


class PredictionFile:
    """A file of predictions.

    Args:
        path: Path of the Parquet file.
        num_classes: Number of classes of the model.

    Attributes:
        path: The same.
        num_rows: Number of rows of the file.
        group_rows: Number of rows of each row group.
        has_labels: Whether it has a column with the images' own classes.

    Raises:
        PrepareError: It is not a Parquet file, or lacks a column.
    """

    def __init__(self, path: Path, *, num_classes: int):
        self.path = path
        self._num_classes = num_classes
        try:
            with self._open() as file:
                types = {field.name: field.type for field in file.schema_arrow}
                metadata = file.metadata
                self.num_rows: int = metadata.num_rows
                groups = map(metadata.row_group, range(metadata.num_row_groups))
                self.group_rows = [group.num_rows for group in groups]
                self._batch_rows = _rows_at_once(metadata)
        except pa.ArrowException as error:
            raise PrepareError(f"{path}: not a Parquet file ({error})") from error
        self.has_labels = "label" in types
        self._is_sparse = "classes" in types
        self._columns = ["scores", "label" if self.has_labels else "name"]
        self._columns += ["classes"] * self._is_sparse
        for name in self._columns:
            self._check_type(name, types)

    def sure(self, posterior: float, *, group: int | None = None) -> Iterator[SurePredictions]:
        """Reads the file in pieces. A score counts if it is above `posterior`, not equal to it.

        Scores are compared as stored: the float32 nearest to 0.95 is not above 0.95.

        Args:
            posterior: What scores are compared with.
            group: Number of the row group to read; None: all of them.

        Raises:
            PrepareError: A score is NaN or not between 0 and 1, the number of scores or classes is
                wrong, or a class repeats or is too large; the message names the row, from 0.
        """
        row = sum(self.group_rows[:group]) if group is not None else 0
        groups = None if group is None else [group]
        try:
            with self._open() as file:
                for batch in file.iter_batches(
                    self._batch_rows, row_groups=groups, columns=self._columns
                ):
                    yield self._sure_of(batch, row, posterior)
                    row += len(batch)
        except (pa.ArrowException, OSError) as error:
            raise PrepareError(f"{self.path}: unreadable after row {row} ({error})") from error

    def _open(self) -> pq.ParquetFile:
        return pq.ParquetFile(self.path, pre_buffer=False, buffer_size=_BUFFER_BYTES)

    def _check_type(self, name: str, types: dict[str, pa.DataType]) -> None:
        if name not in types:
            raise PrepareError(
                f"{self.path}: no column {name!r}, only {sorted(types)}; see --help for the columns"
            )
        what, fits = _TYPES[name]
        if not fits(types[name]):
            raise PrepareError(f"{self.path}: column {name!r} has {types[name]}, not {what}")

    def _sure_of(self, batch: pa.RecordBatch, first: int, posterior: float) -> SurePredictions:
        present = np.flatnonzero(batch.column("scores").is_valid().to_numpy(zero_copy_only=False))
        without_scores = len(batch) - len(present)
        if without_scores:
            batch = batch.take(pa.array(present))
        piece = _Piece(self.path, first + present, batch)
        names = None if self.has_labels else piece.names()
        labels = piece.labels() if self.has_labels else None
        of = piece.sure_sparse if self._is_sparse else piece.sure_dense
        images, classes = of(posterior, self._num_classes)
        return SurePredictions(len(present), names, labels, images, classes, without_scores)


class _Piece:
    """Rows of a file that all have scores.

    Args:
        path: Path of the file.
        rows: int64 [N], row numbers in the file.
        batch: The rows.
    """

    def __init__(self, path: Path, rows: np.ndarray, batch: pa.RecordBatch):
        self._path, self._rows, self._batch = path, rows, batch
        self._scores, self._lengths = _flatten(batch.column("scores"))

    def names(self) -> list[bytes]:
        column = self._batch.column("name")
        self._refuse_rows(column.is_null().to_numpy(zero_copy_only=False), "the name is null")
        large = pa.types.is_large_string(column.type)
        return column.cast(pa.large_binary() if large else pa.binary()).to_pylist()

    def labels(self) -> np.ndarray:
        column = self._batch.column("label")
        return column.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)

    def sure_dense(self, posterior: float, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the indices of images and classes whose score is above `posterior`."""
        self._refuse_rows(
            self._lengths != num_classes,
            f"the number of scores is not {num_classes}, the number of classes: is "
            "--prediction-dictionary (by default --dictionary) the model's?",
        )
        self._check_scores()
        return np.divmod(np.flatnonzero(self._scores > posterior), num_classes)

    def sure_sparse(self, posterior: float, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
        """Does the same with the classes from their column."""
        classes, lengths = _flatten(self._batch.column("classes"))
        self._refuse_rows(lengths != self._lengths, "the numbers of classes and scores differ")
        self._check_scores()
        self._refuse_values(
            ~((classes >= 0) & (classes < num_classes)),  # null is NaN
            f"a class is not in 0..{num_classes - 1}: is --prediction-dictionary (by default "
            "--dictionary) the model's?",
        )
        sure = np.flatnonzero(self._scores > posterior)
        images = np.repeat(np.arange(len(lengths)), lengths)[sure]
        chosen = classes[sure].astype(np.int64)
        order = np.lexsort((chosen, images))
        same = (np.diff(images[order]) == 0) & (np.diff(chosen[order]) == 0)
        repeats = np.zeros(len(classes), bool)
        repeats[sure[order[1:][same]]] = True
        self._refuse_values(repeats, "a class occurs twice")
        return images, chosen

    def _check_scores(self) -> None:
        # min and max need no temporary arrays; a comparison with NaN is false, so NaN fails too.
        if not (self._scores.min(initial=0) >= 0 and self._scores.max(initial=0) <= _MAX_SCORE):
            self._refuse_values(
                ~((self._scores >= 0) & (self._scores <= _MAX_SCORE)),
                "a score is NaN, null or not between 0 and 1; are these logits? Give probabilities",
            )

    def _refuse_values(self, bad: np.ndarray, message: str) -> None:
        if bad.any():
            of_row = np.searchsorted(np.cumsum(self._lengths), int(bad.argmax()), side="right")
            self._refuse(int(of_row), message)

    def _refuse_rows(self, bad: np.ndarray, message: str) -> None:
        if bad.any():
            self._refuse(int(bad.argmax()), message)

    def _refuse(self, place: int, message: str) -> NoReturn:
        name = ""
        if "name" in self._batch.schema.names:
            name = f" ({self._batch.column('name')[place]})"
        raise PrepareError(f"{self._path}: row {self._rows[place]}{name}: {message}")


def _rows_at_once(metadata: pq.FileMetaData) -> int:
    """Returns how many rows have about `_VALUES_AT_ONCE` scores."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    scores = sum(c.num_values for c in columns if c.path_in_schema.split(".")[0] == "scores")
    a_row = scores / max(1, metadata.num_rows)
    return int(min(_ROWS_AT_ONCE, max(1, _VALUES_AT_ONCE // max(1, a_row))))


def _flatten(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Returns the values of all lists, and int64 [N], the length of each list."""
    lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    return column.flatten().to_numpy(zero_copy_only=False), lengths.astype(np.int64)


def _is_list_of(is_kind: Callable[[pa.DataType], bool]) -> Callable[[pa.DataType], bool]:
    def fits(kind: pa.DataType) -> bool:
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        return (is_list or pa.types.is_fixed_size_list(kind)) and is_kind(kind.value_type)

    return fits


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


_TYPES: dict[str, tuple[str, Callable[[pa.DataType], bool]]] = {
    "name": ("strings", _is_text),
    "label": ("integers", pa.types.is_integer),
    "scores": ("lists of floats", _is_list_of(pa.types.is_floating)),
    "classes": ("lists of integers", _is_list_of(pa.types.is_integer)),
}
