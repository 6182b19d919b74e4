# SPDX-License-Identifier: BSD-3-Clause
r"""Writes files of tags, one image after another, and resumes a stopped command's file.

    jsonl       one line per image: {"image": "a.jpg", "tags": [{"index": 2, "id": "n02084071",
                "name": "dog, domestic dog", "score": 0.83, "path": ["animal", ...]}, ...]},
                or {"image": "b.jpg", "error": "truncated: ..."}
    csv         one line per tag: image, rank (from 1), index, id, name, score, path, error; an
                image with no tags, or with an error, has one line whose other columns are empty
    parquet     one row per image: image, tags (a list of structs; null for an error), error
    label_pred  as the original's image_classification.py prints: `+++ the predictions of a.jpg is:`
                and a line `2 dog, domestic dog: 0.830` per tag (with the full name, of which the
                original prints the first word), or `open pic b.jpg failed`

Names are complete, and a path leads from the root to the class itself (joined by " > " in csv).
Images are identified by path; bytes that are not UTF-8 are written as \xHH in all formats. In csv
and label_pred, line ends, tabs and other control characters are escaped too, so that each text
stays on one line. In csv, a text that begins with = + - or @ gets a leading `'`, because a
spreadsheet would read it as a formula. jsonl and parquet contain such texts unchanged.

Until all rows are written they are stored as lines of OUTPUT.partial.jsonl, and
OUTPUT.partial.json records the inputs and settings they were made with.
"""

import csv
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlimages_jax.files.atomic import complete_file
from mlimages_jax.files.escaping import csv_cell, json_line, one_line
from mlimages_jax.inference.tagging import Tag

ENDINGS = {"jsonl": ".jsonl", "csv": ".csv", "parquet": ".parquet", "label_pred": ".txt"}

_ROW_GROUP = 4_096  # images per row group of a Parquet file
_COLUMNS = ("image", "rank", "index", "id", "name", "score", "path", "error")
_TAG = pa.struct(
    [
        ("index", pa.int32()), ("id", pa.string()), ("name", pa.string()),
        ("score", pa.float32()), ("path", pa.list_(pa.string())),
    ]
)  # fmt: skip
_SCHEMA = pa.schema(
    [("image", pa.string()), ("tags", pa.list_(_TAG)), ("error", pa.string())]
)  # fmt: skip

Row = dict[str, Any]


class TagFileError(ValueError):
    """Raised when a file already exists or its partial file belongs to another command."""


def format_of(path: Path) -> str:
    """Returns the format for a file's extension.

    Raises:
        TagFileError: If the extension is unknown.
    """
    for name, ending in ENDINGS.items():
        if path.suffix.lower() == ending:
            return name
    raise TagFileError(
        f"cannot tell the format of {path}: end its name with one of "
        f"{', '.join(ENDINGS.values())}, or give --config.format, one of {', '.join(ENDINGS)}"
    )


def ending_of(file_format: str) -> str:
    """Returns the file extension of a format.

    Raises:
        TagFileError: If the format is unknown.
    """
    if file_format not in ENDINGS:
        raise TagFileError(f"format={file_format!r} is not one of {', '.join(ENDINGS)}")
    return ENDINGS[file_format]


def tags_line(image: str, tags: Sequence[Tag]) -> str:
    """Formats the tags of an image as JSON, without line end; scores have float32 digits."""
    shown = [
        {
            "index": tag.index,
            "id": tag.id,
            "name": tag.name,
            # By way of text: converting a float32 directly would write 0.30000001192092896 for 0.3.
            "score": float(str(np.float32(tag.score))),
            "path": tag.path,
        }
        for tag in tags
    ]
    return json_line({"image": image, "tags": shown})


def error_line(image: str, error: str) -> str:
    """Formats the error of an image as JSON, without line end."""
    return json_line({"image": image, "error": one_line(error)})


class TagFile:
    """A file that appears once all its rows are written; use it as a context manager.

    Args:
        path: Path of the file.
        file_format: One of ENDINGS.
        about: Everything that determines the rows, as JSON values.

    Raises:
        TagFileError: If the format is unknown, the file exists, or a partial file was written
            with other values.
    """

    def __init__(self, path: Path, file_format: str, about: Row):
        ending_of(file_format)
        if path.exists():
            raise TagFileError(f"{path} already exists: give another --config.output, or move it")
        self._path, self._format = path, file_format
        self._rows = path.with_name(f"{path.name}.partial.jsonl")
        self._about = path.with_name(f"{path.name}.partial.json")
        self._file: BinaryIO | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        self._check_about(about)

    def __enter__(self) -> "TagFile":
        self._file = self._rows.open("ab")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file:
            self._file.close()

    def keep(self, *, multiple_of: int) -> tuple[int, int]:
        """Keeps the full batches that a stopped command wrote; returns their rows and errors.

        Args:
            multiple_of: Rows per batch; the rows of an incomplete batch are removed.
        """
        errors: list[bool] = []
        ends = [0]
        with self._rows.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break  # the command stopped in the middle of this line
                errors.append("error" in json.loads(line))
                ends.append(ends[-1] + len(line))
        # All processes have to resume at the start of a global batch.
        count = len(errors) - len(errors) % multiple_of
        os.truncate(self._rows, ends[count])
        return count, sum(errors[:count])

    def append(self, lines: Iterable[str]) -> None:
        """Writes lines made by `tags_line` and `error_line`."""
        assert self._file
        self._file.write("".join(f"{line}\n" for line in lines).encode())
        self._file.flush()

    def finish(self) -> None:
        """Creates the final file from all rows."""
        assert self._file
        self._file.close()
        if self._format == "jsonl":
            self._rows.replace(self._path)
        else:
            with complete_file(self._path) as unfinished:
                _WRITERS[self._format](unfinished, _read(self._rows))
            self._rows.unlink()
        self._about.unlink()

    def _check_about(self, about: Row) -> None:
        """Checks that a stopped command had the same values; starts a new file if there is none."""
        if self._about.exists() and self._rows.exists():
            before = json.loads(self._about.read_text(encoding="utf-8"))
            differences = [
                f"{name}: {before.get(name)!r} before, {about.get(name)!r} now"
                for name in sorted(before.keys() | about.keys())
                if before.get(name) != about.get(name)
            ]
            if differences:
                raise TagFileError(
                    f"{self._rows} was written with other values: use those again, or delete it "
                    f"to start over ({'; '.join(differences)})"
                )
            return
        # The rows are emptied before their description is written. In the other order, a stop
        # between the two would leave another command's rows under this description.
        self._rows.write_bytes(b"")
        with complete_file(self._about) as unfinished:
            unfinished.write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")


def _read(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        yield from map(json.loads, file)


def _write_csv(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, _COLUMNS, restval="", lineterminator="\n")
        table.writeheader()
        for row in rows:
            image = csv_cell(row["image"])
            for rank, tag in enumerate(row.get("tags", ()), start=1):
                texts = {"id": tag["id"], "name": tag["name"], "path": " > ".join(tag["path"])}
                texts = {column: csv_cell(text) for column, text in texts.items()}
                table.writerow({**tag, **texts, "image": image, "rank": rank})
            if not row.get("tags"):
                table.writerow({"image": image, "error": csv_cell(row.get("error", ""))})


def _write_parquet(path: Path, rows: Iterator[Row]) -> None:
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as table:
        while group := list(itertools.islice(rows, _ROW_GROUP)):
            table.write_table(pa.Table.from_pylist(group, _SCHEMA))


def _write_label_pred(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            if "error" in row:
                file.write(f"open pic {one_line(row['image'])} failed\n")
                continue
            file.write(f"+++ the predictions of {one_line(row['image'])} is:\n")
            for tag in row["tags"]:
                file.write(f"{tag['index']} {one_line(tag['name'])}: {tag['score']:.3f}\n")


_WRITERS = {"csv": _write_csv, "parquet": _write_parquet, "label_pred": _write_label_pred}
