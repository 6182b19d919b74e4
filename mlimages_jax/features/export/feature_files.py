# SPDX-License-Identifier: BSD-3-Clause
"""A folder of exported features, one row per image in input order.

    features.json    what the numbers are: network, checkpoint, view, dtype, counts
    index.jsonl      one line per row: {"index": 0, "name": "a.jpg", "labels": "3:1",
                     "error": "..."}, the last two only if there are any
    errors.tsv       index, name and error of the images without features
    components.npz   the principal components, if `features` are stored along these (components.py)
    parts/           Parquet or ArrayRecord files; or instead, in the folder itself,
    features.npy     one array [N, F] per output, or features.npz, all arrays in one file

Names, labels and valid rows are the same for every format; `feature_formats` documents how the
numbers are stored. While an export runs, `unfinished/part-00003.jsonl` contains the lines of a part
and marks that its numbers are stored; missing parts are computed when the export is restarted. The
files `unfinished/*.claim` say what the processes of an elastic export are doing, see `elastic`.
"""

import dataclasses
import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from mlimages_jax.features.export import FeatureFilesError, reading
from mlimages_jax.features.export.feature_formats import (
    Layout,
    NumpyArrays,
    ParquetParts,
    RecordParts,
    Storage,
)
from mlimages_jax.features.export.manifest import MANIFEST, layout_of, read_manifest
from mlimages_jax.features.export.parted_array import PartedArray, check_array
from mlimages_jax.files.object_folder import ObjectFolder

INDEX, ERRORS, ARCHIVE = "index.jsonl", "errors.tsv", "features.npz"


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """One output of an export.

    Attributes:
        array: Array [N, F], memory-mapped or read part by part (see `PartedArray`); rows that are
            not valid are nan.
        valid: bool [N], False for images that could not be read or decoded.
        names: Names of all images.
        labels: Labels of all images as text, "" for none.
        errors: Error messages by position.
        metadata: Contents of features.json.
    """

    array: np.ndarray | PartedArray
    valid: np.ndarray
    names: list[str]
    labels: list[str]
    errors: dict[int, str]
    metadata: dict[str, Any]


def open_features(folder: str | os.PathLike[str], *, output: str = "features") -> Features:
    """Opens a complete export of any format.

    Raises:
        FileNotFoundError: If there is no export.
        FeatureFilesError: If it is incomplete, lacks the output, or its files are inconsistent.
    """
    place = ObjectFolder(folder)
    manifest = read_manifest(folder)
    if not manifest["complete"]:
        raise FeatureFilesError(
            f"the export in {place} is not complete: run the same command again to resume it"
        )
    layout = layout_of(manifest)
    if output not in layout.widths:
        raise FeatureFilesError(f"{place} has {', '.join(layout.widths)}, no {output!r}")
    names, labels, errors = [], [], {}
    with reading(place.path(INDEX)):
        for number, row in enumerate(read_index(place)):
            _check_row(row, number)
            names.append(row["name"])
            labels.append(row.get("labels", ""))
            if "error" in row:
                errors[number] = row["error"]
    if len(names) != layout.images:
        raise FeatureFilesError(
            f"{place.path(INDEX)} has {len(names)} rows but {MANIFEST} promises {layout.images}: "
            "files of two exports are mixed, or the folder was not copied completely"
        )
    valid = np.ones(len(names), bool)
    valid[list(errors)] = False
    return Features(
        array=_array(place, layout, manifest["format"], output),
        valid=valid,
        names=names,
        labels=labels,
        errors=errors,
        metadata=manifest,
    )


def storage_of(folder: ObjectFolder, layout: Layout, file_format: str) -> Storage:
    """Returns how a format is stored; npz as npy, of which it is made."""
    if file_format == "parquet":
        return ParquetParts(folder, layout)
    return (RecordParts if file_format == "array_record" else NumpyArrays)(folder, layout)


def read_index(folder: ObjectFolder) -> Iterator[dict[str, Any]]:
    """Yields the lines of the index."""
    with folder.open(INDEX) as file:
        yield from map(json.loads, file)


def _check_row(row: Any, number: int) -> None:
    """Checks a line of the index.

    Raises:
        ValueError: If it is no such line.
    """
    texts = [row[key] for key in ("name", "labels", "error") if key in row]
    if row["index"] != number or "name" not in row or not all(type(one) is str for one in texts):
        raise ValueError(f"line {number + 1} is not that of row {number}")


def _array(
    folder: ObjectFolder, layout: Layout, file_format: str, output: str
) -> np.ndarray | PartedArray:
    if file_format == "npz":
        path = folder.path(ARCHIVE)
        with reading(path), np.load(path, allow_pickle=False) as arrays:
            array = arrays[output]
        check_array(path, array, layout, output)
        return array
    storage = storage_of(folder, layout, file_format)
    if not isinstance(storage, NumpyArrays):
        return PartedArray(storage, layout, output)
    array = storage.array(output)
    check_array(folder.path(f"{output}.npy"), array, layout, output)
    return array
