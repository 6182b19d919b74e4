# SPDX-License-Identifier: BSD-3-Clause
"""The rows of a Parquet or Arrow file that contains images, without them, for a `Table`."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow

from mlimages_jax.files.machine_faults import lacking
from mlimages_jax.prepare.imports import img2dataset
from mlimages_jax.prepare.imports.arrow_files import ArrowFile, holds_bytes
from mlimages_jax.prepare.imports.class_names import classes_in, features_of
from mlimages_jax.prepare.imports.columns import LABELS
from mlimages_jax.prepare.imports.image_columns import (
    BATCH,
    Cell,
    cells_of,
    find_image_column,
    image_of,
)
from mlimages_jax.prepare.imports.records import Record

_ROWS = 1_000  # in memory, without images


class ImageRows:
    """The rows of a file with images; `Records` whose paths are the names of images in a tar.

    Args:
        file: The file.
        image_column: The column of the images, if the user named it.

    Attributes:
        path: The path of the file.
        tar: Name of the tar that the images will be in.
        image_column: The column of the images; None: there is none.
        bad: Reasons why rows have no image, by number from 1; known once `images` was read.
        format: As in `Records`, like the following.
        names: Names of the columns.
        classes: Names of the classes of columns that have some.

    Raises:
        PrepareError: The file or its metadata is damaged, or several columns contain images, or the
            column that the user named does not.
    """

    def __init__(self, file: ArrowFile, *, image_column: str | None = None):
        self.path = file.path
        self.tar = ""
        self.bad: dict[int, str] = {}
        self._file = file
        self.format = file.format
        schema = file.schema
        features = features_of(file.path, schema.metadata)
        self.image_column = find_image_column(self._file, features, image_column)
        kept = [field.name for field in schema if not holds_bytes(field.type)]
        self._others = [name for name in kept if name != self.image_column]
        self.names = (*filter(None, [self.image_column]), *self._others)
        self._classes = classes_in(features, self._others)
        self.classes = {name: one.names for name, one in self._classes.items()}
        self._is_fetched = img2dataset.is_status(self._others)

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The column of labels, if only the metadata shows which it is."""
        by_name = any(name.strip().lower() in LABELS for name in self._others)
        return tuple(self.classes) if len(self.classes) == 1 and not by_name else ()

    def read(self, limit: int | None, columns: Sequence[str] | None) -> Iterator[Record]:
        """Yields the rows without their images, see `Records`."""
        needed = [name for name in columns or self._others if name != self.image_column]
        for number, values in self._numbered(needed):
            if number in self.bad:
                yield number, self.bad[number]
            else:
                yield self._record(number, values, is_sample=columns is None)
            if limit is not None and number >= limit:
                return

    def statuses(self) -> Counter[str]:
        """Counts rows whose image did not come, by img2dataset's status; reads that column only."""
        counts: Counter[str] = Counter()
        columns = [img2dataset.STATUS] if self._is_fetched else []
        for rows in self._batches(columns):
            counts.update(str(row[img2dataset.STATUS]) for row in rows)
        counts.pop(img2dataset.SUCCESS, None)
        return counts

    def images(self, folders: Sequence[Path]) -> Iterator[tuple[str, bytes | pyarrow.Buffer]]:
        """Yields name in the tar and bytes of each image, and notes in `bad` what has none.

        Args:
            folders: Folders that the paths of images without bytes are relative to.
        """
        column = str(self.image_column)
        status = [img2dataset.STATUS] if self._is_fetched else []

        def parse(batch: pyarrow.RecordBatch) -> list[tuple[Cell, bool]]:
            came = map(self._came, batch.select(status).to_pylist()) if status else (True,) * BATCH
            return list(zip(cells_of(batch.column(column)), came, strict=False))

        batches = self._file.batches([column, *status], parse, rows=BATCH)
        for number, (cell, came) in enumerate(itertools.chain.from_iterable(batches), start=1):
            if not came:  # and is no bad row either, of which there may be millions
                continue
            try:
                yield _member(number), image_of(cell, folders)
            except (OSError, ValueError) as error:
                if isinstance(error, OSError) and lacking(error):
                    raise
                self.bad[number] = str(error)

    def _record(self, number: int, values: Mapping[str, Any], *, is_sample: bool) -> Record:
        row = {str(self.image_column): f"{self.tar}/{_member(number)}", **values}
        for name in self._classes.keys() & values.keys():
            try:
                row[name] = self._classes[name].labels_of(values[name])
            except ValueError as error:
                if not is_sample:  # of which other columns than that of the labels are read too
                    return number, f'"{name}": {error}'
                row[name] = None
        return number, row

    def _numbered(self, columns: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yields the rows whose image came, with their numbers from 1."""
        status = [img2dataset.STATUS] if self._is_fetched else []
        batches = self._batches(list(dict.fromkeys([*columns, *status])))
        for number, row in enumerate(itertools.chain.from_iterable(batches), start=1):
            if self._came(row):
                yield number, row

    def _batches(self, columns: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
        if not columns:  # a table without columns would have no rows
            return iter(())
        return self._file.batches(columns, pyarrow.RecordBatch.to_pylist, rows=_ROWS)

    def _came(self, row: Mapping[str, Any]) -> bool:
        """Returns whether img2dataset got the image of a row; of others, every image is there."""
        return not self._is_fetched or row[img2dataset.STATUS] == img2dataset.SUCCESS


def _member(number: int) -> str:
    return f"{number:08}"
