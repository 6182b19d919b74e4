# SPDX-License-Identifier: BSD-3-Clause
r"""The formats of files of tags.

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
"""

import csv
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlimages_jax.files.escaping import csv_cell, json_line, one_line
from mlimages_jax.inference.tagging import Tag, rounded

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
    """Raised when a format is unknown, or a file exists that this command must not replace."""


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
            "score": rounded(tag.score),
            "path": tag.path,
        }
        for tag in tags
    ]
    return json_line({"image": image, "tags": shown})


def error_line(image: str, error: str) -> str:
    """Formats the error of an image as JSON, without line end."""
    return json_line({"image": image, "error": one_line(error)})


def write(path: Path, file_format: str, rows: Iterable[Row]) -> None:
    """Writes a complete file.

    Args:
        path: Path of the file.
        file_format: One of ENDINGS.
        rows: Parsed lines of `tags_line` and `error_line`.
    """
    _WRITERS[file_format](path, iter(rows))


def _write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{json_line(row)}\n" for row in rows)


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


_WRITERS: dict[str, Callable[[Path, Iterator[Row]], None]] = {
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "parquet": _write_parquet,
    "label_pred": _write_label_pred,
}
