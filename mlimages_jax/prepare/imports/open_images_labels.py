# SPDX-License-Identifier: BSD-3-Clause
"""Reads the image-level labels of Open Images: tables of many million rows to sparse label lists.

A table has the columns ImageID, Source, LabelName and Confidence. A row takes 16 bytes here. Rows
are sorted in 256 parts, by the first byte of the image's id.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

from mlimages_jax.labels.lists import LabelRow
from mlimages_jax.monitoring.progress_bar import progress
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.open_images_classes import is_class_id
from mlimages_jax.prepare.imports.text_lines import detect

COLUMNS = ("ImageID", "Source", "LabelName", "Confidence")
MACHINE = "machine"  # the only source that is not a human annotator
_BLOCK_BYTES = 1 << 22  # of a table, read at once
_MEGABYTE = 1_000_000
_VERDICT = np.dtype([("image", np.uint64), ("class", np.int32), ("rank", np.uint32)])
_BY_A_PERSON = np.uint32(1 << 31)
_ID_DIGITS = 16
_NO_DIGIT = 255
_DIGITS = np.full(256, _NO_DIGIT, np.uint8)
_DIGITS[list(b"0123456789abcdef")] = np.arange(16)


class Verdicts:
    """The verdicts of humans and machines on images and classes.

    If there are several verdicts on a class of an image, a human's beats a machine's; otherwise the
    higher confidence wins. `rank` encodes this order: the bits of a float32 from 0 to 1 sort like
    their values, and the highest bit, which they leave free, is set for humans.

    Args:
        class_numbers: Number of each class id so far; new ids are added. Several instances may
            share it.

    Attributes:
        rows: Number of rows read, by source.
    """

    def __init__(self, class_numbers: dict[str, int]):
        self.rows: Counter[str] = Counter()
        self._numbers = class_numbers
        self._parts: list[list[np.ndarray]] = [[] for _ in range(256)]

    def read(self, path: Path, *, with_machine: bool) -> None:
        """Adds the rows of a table, in any order; it may be compressed with gzip.

        Args:
            path: The table.
            with_machine: Whether to keep verdicts of machines too.

        Raises:
            PrepareError: The table is malformed; the message has path and row, if known. The header
                is row 1; blank lines are not counted.
        """
        before = 2
        for batch in _batches(path):
            try:
                verdicts = self._parse(batch, with_machine=with_machine)
            except _RowError as error:
                raise PrepareError(f"{path}: row {before + error.row:,}: {error}") from error
            self._add(verdicts)
            before += batch.num_rows

    def label_rows(self, name: str, class_of_number: np.ndarray) -> Iterator[LabelRow]:
        """Yields the images, sorted by id.

        Args:
            name: Name of an image, with {id} for its id.
            class_of_number: int32, the class index for each number of `class_numbers`.
        """
        for part in self._parts:
            if part:
                yield from _label_rows(np.concatenate(part), name, class_of_number)

    def _parse(self, batch: pa.RecordBatch, *, with_machine: bool) -> np.ndarray:
        """Converts a batch of a table into verdicts [n]."""
        images, sources, classes, confidences = (batch.column(name) for name in COLUMNS)
        images = _image_numbers(images)
        texts, place = _words(sources)
        _refuse(place, [not text or "\0" in text for text in texts], texts, "is not a source")
        counts = np.bincount(place, minlength=len(texts)).tolist()
        self.rows.update(dict(zip(texts, counts, strict=True)))
        person = np.array([text != MACHINE for text in texts])[place]
        confidences = _confidences(confidences)
        texts, place = _words(classes)
        _refuse(place, [not is_class_id(text) for text in texts], texts, "is not a class id")
        numbers = [self._numbers.setdefault(text, len(self._numbers)) for text in texts]

        verdicts = np.empty(batch.num_rows, _VERDICT)
        verdicts["image"] = images
        verdicts["class"] = np.array(numbers, np.int32)[place]
        verdicts["rank"] = confidences.view(np.uint32) | np.where(person, _BY_A_PERSON, 0)
        return verdicts if with_machine else verdicts[person]

    def _add(self, verdicts: np.ndarray) -> None:
        part = (verdicts["image"] >> np.uint64(56)).astype(np.uint8)
        verdicts = verdicts[np.argsort(part, kind="stable")]
        stops = np.cumsum(np.bincount(part, minlength=256))
        for pieces, piece in zip(self._parts, np.split(verdicts, stops[:-1]), strict=True):
            if piece.size:
                pieces.append(piece)


class _RowError(ValueError):
    """A row is malformed; `row` is its number in the batch, from 0."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Reads a table; all columns except image ids are dictionary-encoded texts.

    Confidences too: they have few different values, and texts keep the row of a bad value known.
    """
    word = pa.dictionary(pa.int32(), pa.string())
    types = {name: pa.string() if name == "ImageID" else word for name in COLUMNS}
    packed, encoding = detect(path)
    with (
        path.open("rb") as file,
        progress(path.stat().st_size // _MEGABYTE, what=path.name, unit=" MB") as bar,
    ):
        try:
            reader = pa.csv.open_csv(
                pa.input_stream(file, compression="gzip" if packed else None),
                # Row numbers in error messages are only right without threads.
                read_options=pa.csv.ReadOptions(
                    block_size=_BLOCK_BYTES,
                    use_threads=False,
                    encoding="utf8" if encoding.startswith("utf-8") else encoding,
                ),
                convert_options=pa.csv.ConvertOptions(
                    column_types=types, include_columns=COLUMNS, strings_can_be_null=False
                ),
            )
            for batch in reader:
                yield batch
                bar.update(file.tell() // _MEGABYTE - bar.n)
        except (pa.ArrowInvalid, pa.ArrowKeyError, UnicodeError, OSError) as error:
            message = str(error).removesuffix(".")
            raise PrepareError(
                f"{path}: {message}; the columns must be {', '.join(COLUMNS)}, the file complete"
            ) from error


def _words(column: pa.DictionaryArray) -> tuple[list[str], np.ndarray]:
    """Returns the different texts of a column, and int32 [n], the index of each row's text."""
    return column.dictionary.to_pylist(), column.indices.to_numpy()


def _refuse(place: np.ndarray, bad: list[bool], texts: list[str], what: str) -> None:
    """Raises `_RowError` for the first row with a bad text."""
    if any(bad):
        row = int(np.array(bad)[place].argmax())
        raise _RowError(row, f"{texts[place[row]]!r} {what}; correct the row or remove it")


def _image_numbers(column: pa.StringArray) -> np.ndarray:
    """Returns the ids, 16 hexadecimal digits each, as numbers, uint64 [n]."""
    bad = pa.compute.binary_length(column).to_numpy() != _ID_DIGITS
    if not bad.any():
        text = np.frombuffer(column.cast(pa.binary(_ID_DIGITS)).buffers()[1], np.uint8)
        digits = _DIGITS[text.reshape(-1, _ID_DIGITS)]
        bad = (digits == _NO_DIGIT).any(axis=1)
    if bad.any():
        row = int(bad.argmax())
        raise _RowError(
            row, f"{column[row].as_py()!r} is not an image id of 16 digits 0-9 and a-f; correct it"
        )
    # With a table for all rows at once, as int(text, 16) takes seconds for every million rows.
    pairs = digits[:, 0::2] << 4 | digits[:, 1::2]  # uint8 [n, 8], the highest byte first
    return pairs.view(">u8").ravel().astype(np.uint64)


def _confidences(column: pa.DictionaryArray) -> np.ndarray:
    """Returns the confidences, float32 [n]."""
    texts, place = _words(column)
    values = np.array([_number(text) for text in texts], np.float32)
    bad = ~((values >= 0) & (values <= 1))
    _refuse(place, bad.tolist(), texts, "is not a confidence between 0 and 1")
    return np.abs(values)[place]  # turns -0 into 0


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _label_rows(verdicts: np.ndarray, name: str, class_of_number: np.ndarray) -> Iterator[LabelRow]:
    """Yields images from all of their verdicts, by id, with ascending classes."""
    images, ranks = verdicts["image"], verdicts["rank"]
    classes = class_of_number[verdicts["class"]]
    order = np.lexsort((ranks, classes, images))
    images, classes, ranks = images[order], classes[order], ranks[order]
    new_image = np.append(True, images[1:] != images[:-1])
    new_label = new_image | np.append(True, classes[1:] != classes[:-1])
    last = np.append(new_label[1:], True)  # the highest rank of each label
    images, classes = images[last], classes[last]
    confidences = (ranks[last] & ~_BY_A_PERSON).view(np.float32)
    starts = np.flatnonzero(np.append(True, images[1:] != images[:-1]))
    stops = np.append(starts[1:], len(images))
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        id_ = f"{int(images[start]):0{_ID_DIGITS}x}"
        yield LabelRow(name.format(id=id_), classes[start:stop], confidences[start:stop])
