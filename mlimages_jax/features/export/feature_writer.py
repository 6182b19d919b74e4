# SPDX-License-Identifier: BSD-3-Clause
"""Writes the files of an export, see `feature_files`, part by part."""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from mlimages_jax.distributed import claims
from mlimages_jax.features.export import FeatureFilesError
from mlimages_jax.features.export.components import FILE
from mlimages_jax.features.export.feature_files import (
    ARCHIVE,
    ERRORS,
    INDEX,
    read_index,
    storage_of,
)
from mlimages_jax.features.export.feature_formats import FORMATS, Layout, NumpyArrays, Part
from mlimages_jax.features.export.manifest import (
    COMPONENTS,
    MANIFEST,
    check_same,
    layout_values,
    read_manifest,
    write_manifest,
)
from mlimages_jax.files.escaping import json_line, tsv_row
from mlimages_jax.files.object_folder import ObjectFolder

UNFINISHED = "unfinished"
_REQUESTS = 16  # at once, to a bucket


class FeatureWriter:
    """Writes the parts of an export, each one in the background.

    Args:
        folder: A folder on a disk or in a bucket; created if missing.
        layout: Layout of the numbers.
        file_format: One of FORMATS. npz is written as npy and packed at the end, for small sets;
            neither can be written into a bucket.
        about: Everything else that determines the numbers, as JSON values; `input` is recorded but
            not compared.

    Raises:
        FeatureFilesError: If the format is unknown or cannot be written there.
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
        self._folder, self._layout = ObjectFolder(folder), layout
        self._storage = storage_of(self._folder, layout, file_format)
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
        if MANIFEST in self._folder.sizes():
            saved = read_manifest(self._folder.place)
            check_same(saved, self._manifest, where=self._folder)
            if saved["complete"]:
                self.clean()
                return True
        else:
            self._check_empty()
            write_manifest(self._folder, self._manifest)
        self._storage.prepare()
        return False

    def done(self) -> np.ndarray:
        """Returns which parts are stored, bool [parts]; call it after `begin`.

        Raises:
            FeatureFilesError: If this process does not see the folder that `begin` prepared.
        """
        if MANIFEST not in self._folder.sizes():
            raise FeatureFilesError(
                f"{self._folder} is not the folder that process 0 prepared: give a --workdir "
                "that all machines share"
            )
        stored = self._folder.sizes(UNFINISHED)  # one listing, not a request a part
        return np.array([_lines(i) in stored for i in range(self._layout.parts)], bool)

    def is_complete(self) -> bool:
        """Returns whether somebody has finished the export."""
        return bool(read_manifest(self._folder.place)["complete"])

    def write(self, part: Part) -> None:
        """Starts to write a part, after waiting for the previous one.

        Raises:
            OSError: If the previous part could not be written.
        """
        self.wait()
        self._writing = self._background.submit(self._write, part)

    def wait(self) -> None:
        """Waits until everything is stored.

        Raises:
            OSError: If it could not be written.
        """
        if self._writing:
            self._writing.result()
            self._writing = None

    def finish(self, *, speed: dict[str, Any], components: str | None = None) -> dict[str, Any]:
        """Combines the parts when all are done. A second process that does so writes the same.

        Args:
            speed: JSON values for the manifest.
            components: Digest of the principal components that are stored, if any.

        Returns:
            The manifest.
        """
        try:
            errors = self._combine()
        except FileNotFoundError:  # another process was faster and has removed the parts
            if self.is_complete():
                self.clean()  # of what this process has written since then
                return read_manifest(self._folder.place)
            raise
        # Last: a stop before this line repeats the combining, and after it only the cleaning.
        manifest = self._manifest | {"complete": True, "errors": errors, "speed": speed}
        manifest |= {COMPONENTS: components} if components else {}
        write_manifest(self._folder, manifest)
        self.clean()
        return manifest

    def clean(self) -> None:
        """Removes files that only an unfinished export needs."""
        if self._folder.local:
            shutil.rmtree(self._folder.local / UNFINISHED, ignore_errors=True)
        else:
            names = [f"{UNFINISHED}/{name}" for name in self._folder.sizes(UNFINISHED)]
            with ThreadPoolExecutor(_REQUESTS) as pool:
                list(pool.map(self._folder.remove, names))
        if self._manifest["format"] == "npz" and isinstance(self._storage, NumpyArrays):
            self._storage.remove()

    def _combine(self) -> int:
        """Writes the files of all rows; returns the number of errors."""
        with self._folder.creating(INDEX) as path, path.open("wb") as index:
            for lines in self._all_lines():
                index.write(lines)
        errors = 0
        with self._folder.creating(ERRORS) as path, path.open("w", encoding="utf-8") as file:
            for row in read_index(self._folder):
                if "error" in row:
                    errors += 1
                    file.write(tsv_row([row["index"], row["name"], row["error"]]))
        if self._manifest["format"] == "npz":
            self._pack()
        return errors

    def _all_lines(self) -> Iterator[bytes]:
        """Yields the lines of the parts in order, of a bucket with several requests at once."""
        names = [f"{UNFINISHED}/{_lines(number)}" for number in range(self._layout.parts)]
        with ThreadPoolExecutor(_REQUESTS) as pool:
            for start in range(0, len(names), _REQUESTS):
                yield from pool.map(self._folder.read, names[start : start + _REQUESTS])

    def _write(self, part: Part) -> None:
        """Writes the numbers, then the lines, whose presence marks that the part is done."""
        self._storage.write(part)
        positions = self._layout.positions(part.number)
        lines = []
        rows = zip(positions, part.names, part.labels, part.errors, strict=True)
        for index, name, labels, error in rows:
            row: dict[str, Any] = {"index": index, "name": name}
            row |= {"labels": labels} if labels else {}
            row |= {"error": error} if error else {}
            lines.append(json_line(row) + "\n")
        self._folder.write(f"{UNFINISHED}/{_lines(part.number)}", "".join(lines).encode())

    def _pack(self) -> None:
        """Packs all arrays into one file."""
        assert isinstance(self._storage, NumpyArrays)
        # NumPy types savez's other keyword as bool; versions before 2.2 store it as an array.
        arrays: dict[str, Any] = {o: self._storage.array(o) for o in self._layout.widths}
        rows = list(read_index(self._folder))
        arrays["names"] = np.array([row["name"] for row in rows], np.str_)
        arrays["errors"] = np.array([row.get("error", "") for row in rows], np.str_)
        with self._folder.creating(ARCHIVE) as path, path.open("wb") as file:
            np.savez(file, **arrays)

    def _check_empty(self) -> None:
        arrays = [f"{output}.npy" for output in self._layout.widths]
        files = self._folder.sizes()
        found = [name for name in (INDEX, ARCHIVE, FILE, *arrays) if name in files]
        found += [
            f"{folder}/{name}" for folder in ("parts", UNFINISHED)
            for name in self._folder.sizes(folder) if not name.endswith(claims.SUFFIX)
        ]  # fmt: skip
        if found:
            raise FeatureFilesError(
                f"{self._folder} contains {found[0]} without {MANIFEST}: give another --workdir, "
                "or remove it"
            )


def _lines(number: int) -> str:
    """Returns the name of the file with the lines of a part."""
    return f"part-{number:05d}.jsonl"
