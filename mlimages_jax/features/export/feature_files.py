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
and marks that its numbers are on disk; missing parts are computed when the export is restarted.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from mlimages_jax.features.export import FeatureFilesError as FeatureFilesError
from mlimages_jax.features.export import reading
from mlimages_jax.features.export.feature_formats import (
    FORMATS as FORMATS,
)
from mlimages_jax.features.export.feature_formats import (
    Layout,
    NumpyArrays,
    ParquetParts,
    Part,
    PartedArray,
    RecordParts,
    Storage,
    check_array,
)
from mlimages_jax.features.export.manifest import (
    COMPONENTS,
    MANIFEST,
    check_same,
    layout_of,
    layout_values,
    write_manifest,
)
from mlimages_jax.features.export.manifest import read_manifest as read_manifest
from mlimages_jax.files.atomic import complete_file
from mlimages_jax.files.escaping import json_line, tsv_row
from mlimages_jax.files.remote import is_remote

_INDEX, _ERRORS, _ARCHIVE = "index.jsonl", "errors.tsv", "features.npz"
_UNFINISHED = "unfinished"


class FeatureWriter:
    """Writes the parts of an export, each one in the background.

    Args:
        folder: A folder on a local or mounted disk; created if missing.
        layout: Layout of the numbers.
        file_format: One of FORMATS. npz is written as npy and packed at the end, for small sets.
        about: Everything else that determines the numbers, as JSON values; `input` is recorded but
            not compared.

    Raises:
        FeatureFilesError: If the format is unknown or the folder is not on a disk.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        layout: Layout,
        file_format: str,
        about: dict[str, Any],
    ):
        if file_format not in FORMATS:
            raise FeatureFilesError(f"format={file_format!r} is none of {', '.join(FORMATS)}")
        if is_remote(folder):
            raise FeatureFilesError(
                f"{folder}: features are written to a disk; give a local folder and copy it when "
                "it is complete, or mount the bucket"
            )
        self._folder, self._layout = Path(folder), layout
        self._storage = _storage(self._folder, layout, file_format)
        self._manifest: dict[str, Any] = {
            "complete": False, "format": file_format, **layout_values(layout), **about,
        }  # fmt: skip
        # One part is written while the next is computed. With more threads, parts could pile up in
        # memory.
        self._background = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def begin(self) -> bool:
        """Prepares the folder; called by one process, before the others write.

        Returns:
            Whether the export is already complete.

        Raises:
            FeatureFilesError: If the folder contains other features, or files of unknown origin.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        if (self._folder / MANIFEST).exists():
            saved = read_manifest(self._folder)
            check_same(saved, self._manifest, where=self._folder)
            if saved["complete"]:
                self._clean()
                return True
        else:
            self._check_empty()
            write_manifest(self._folder, self._manifest)
        (self._folder / _UNFINISHED).mkdir(exist_ok=True)
        self._storage.prepare()
        return False

    def done(self) -> np.ndarray:
        """Returns which parts are on disk, bool [parts]; call it after `begin`.

        Raises:
            FeatureFilesError: If this process does not see the folder that `begin` prepared.
        """
        if not (self._folder / MANIFEST).exists():
            raise FeatureFilesError(
                f"{self._folder} is not the folder that process 0 prepared: give a --workdir "
                "that all machines share"
            )
        return np.array([self._lines(i).exists() for i in range(self._layout.parts)], bool)

    def write(self, part: Part) -> None:
        """Starts to write a part, after waiting for the previous one.

        Raises:
            OSError: If the previous part could not be written.
        """
        self.wait()
        self._writing = self._background.submit(self._write, part)

    def wait(self) -> None:
        """Waits until everything is on disk.

        Raises:
            OSError: If it could not be written.
        """
        if self._writing:
            self._writing.result()
            self._writing = None

    def finish(self, *, speed: dict[str, Any], components: str | None = None) -> dict[str, Any]:
        """Combines the parts when all are done; called by one process.

        Args:
            speed: JSON values for the manifest.
            components: Digest of the principal components that are stored, if any.

        Returns:
            The manifest.
        """
        files = [self._lines(number) for number in range(self._layout.parts)]
        with complete_file(self._folder / _INDEX) as path, path.open("wb") as index:
            for file in files:
                index.write(file.read_bytes())
        rows = [row for row in _read_index(self._folder) if "error" in row]
        with complete_file(self._folder / _ERRORS) as path:
            lines = (tsv_row([row["index"], row["name"], row["error"]]) for row in rows)
            path.write_text("".join(lines), encoding="utf-8")
        if self._manifest["format"] == "npz":
            self._pack()
        # Last: a stop before this line repeats the combining, and after it only the cleaning.
        manifest = self._manifest | {"complete": True, "errors": len(rows), "speed": speed}
        manifest |= {COMPONENTS: components} if components else {}
        write_manifest(self._folder, manifest)
        self._clean()
        return manifest

    def _write(self, part: Part) -> None:
        """Writes the numbers, then the lines, whose presence marks that the part is done."""
        self._storage.write(part)
        positions = self._layout.positions(part.number)
        with complete_file(self._lines(part.number)) as path, path.open("w", encoding="utf-8") as f:
            rows = zip(positions, part.names, part.labels, part.errors, strict=True)
            for index, name, labels, error in rows:
                row: dict[str, Any] = {"index": index, "name": name}
                row |= {"labels": labels} if labels else {}
                row |= {"error": error} if error else {}
                f.write(json_line(row) + "\n")

    def _pack(self) -> None:
        """Packs all arrays into one file."""
        assert isinstance(self._storage, NumpyArrays)
        # NumPy types savez's other keyword as bool; versions before 2.2 store it as an array.
        arrays: dict[str, Any] = {o: self._storage.array(o) for o in self._layout.widths}
        rows = list(_read_index(self._folder))
        arrays["names"] = np.array([row["name"] for row in rows], np.str_)
        arrays["errors"] = np.array([row.get("error", "") for row in rows], np.str_)
        with complete_file(self._folder / _ARCHIVE) as path, path.open("wb") as file:
            np.savez(file, **arrays)

    def _lines(self, number: int) -> Path:
        return self._folder / _UNFINISHED / f"part-{number:05d}.jsonl"

    def _clean(self) -> None:
        """Removes files that only an unfinished export needs."""
        shutil.rmtree(self._folder / _UNFINISHED, ignore_errors=True)
        if self._manifest["format"] == "npz" and isinstance(self._storage, NumpyArrays):
            self._storage.remove()

    def _check_empty(self) -> None:
        arrays = [f"{output}.npy" for output in self._layout.widths]
        for name in ("parts", _UNFINISHED, _INDEX, _ARCHIVE, *arrays):
            if (self._folder / name).exists():
                raise FeatureFilesError(
                    f"{self._folder} contains {name} without {MANIFEST}: give another --workdir, "
                    "or remove it"
                )


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
    folder = Path(folder)
    manifest = read_manifest(folder)
    if not manifest["complete"]:
        raise FeatureFilesError(
            f"the export in {folder} is not complete: run the same command again to resume it"
        )
    layout = layout_of(manifest)
    if output not in layout.widths:
        raise FeatureFilesError(f"{folder} has {', '.join(layout.widths)}, no {output!r}")
    with reading(folder / _INDEX):
        rows = [_checked(row, index) for index, row in enumerate(_read_index(folder))]
    if len(rows) != layout.images:
        raise FeatureFilesError(
            f"{folder / _INDEX} has {len(rows)} rows but {MANIFEST} promises {layout.images}: "
            "files of two exports are mixed, or the folder was not copied completely"
        )
    errors = {row["index"]: row["error"] for row in rows if "error" in row}
    valid = np.ones(len(rows), bool)
    valid[list(errors)] = False
    return Features(
        array=_array(folder, layout, manifest["format"], output),
        valid=valid,
        names=[row["name"] for row in rows],
        labels=[row.get("labels", "") for row in rows],
        errors=errors,
        metadata=manifest,
    )


def _checked(row: Any, index: int) -> dict[str, Any]:
    """Returns a line of the index.

    Raises:
        ValueError: If it is no such line.
    """
    texts = [row[key] for key in ("name", "labels", "error") if key in row]
    if row["index"] != index or "name" not in row or not all(type(one) is str for one in texts):
        raise ValueError(f"line {index + 1} is not that of row {index}")
    return row


def _array(folder: Path, layout: Layout, file_format: str, output: str) -> np.ndarray | PartedArray:
    if file_format == "npz":
        path = folder / _ARCHIVE
        with reading(path), np.load(path, allow_pickle=False) as arrays:
            array = arrays[output]
        check_array(path, array, layout, output)
        return array
    storage = _storage(folder, layout, file_format)
    if isinstance(storage, NumpyArrays):
        return storage.array(output)
    return PartedArray(storage, layout, output)


def _storage(folder: Path, layout: Layout, file_format: str) -> Storage:
    if file_format == "parquet":
        return ParquetParts(folder, layout)
    return (RecordParts if file_format == "array_record" else NumpyArrays)(folder, layout)


def _read_index(folder: Path) -> Iterator[dict[str, Any]]:
    with (folder / _INDEX).open(encoding="utf-8") as file:
        yield from map(json.loads, file)
