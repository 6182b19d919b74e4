# SPDX-License-Identifier: BSD-3-Clause
"""Finds the column of a Parquet or Arrow file that contains images, and takes images out of it.

A cell is the bytes of an image file or, as `datasets` has it, an object {"bytes": ..., "path": ...}
of which the path alone may be there.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pyarrow.compute

from mlimages_jax.data.archives import MAX_MEMBER_BYTES
from mlimages_jax.data.image_folders import read_regular
from mlimages_jax.data.images.header import begins_like_image
from mlimages_jax.files.safe_paths import UnsafeNameError, inside
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.arrow_files import ArrowFile, holds_bytes
from mlimages_jax.prepare.imports.class_names import Features

BATCH = 16  # rows with images in memory
_USUAL = ("image", "img", "jpg", "jpeg", "png", "webp")  # names that decide between several columns
_BYTES, _PATH = "bytes", "path"  # of a cell that is an object
_SNIFFED = 64  # rows
_START_BYTES = 64

Cell = tuple[pyarrow.Buffer | None, str | None]  # bytes and path of an image


def find_image_column(file: ArrowFile, features: Features, said: str | None) -> str | None:
    """Returns the column of the images; None if there is none.

    Args:
        file: The file.
        features: What `datasets` says about its columns.
        said: The column that the user named.

    Raises:
        PrepareError: Several columns contain images, or that of the user does not.
    """
    possible = [field.name for field in file.schema if holds_bytes(field.type)]
    if said is not None:
        if said not in possible:
            columns = ", ".join(map(repr, file.names))[:400]
            raise PrepareError(
                f"{file.path}: --image-column {said}: there is no such column of images; its "
                f"columns are {columns}"
            )
        return said
    found = [name for name in possible if _is_image_feature(features.get(name))]
    found = found or [name for name in possible if _begins_with_images(file, name)]
    usual = [name for name in _USUAL if name in found]
    if len(found) > 1 and not usual:
        raise PrepareError(
            f"{file.path}: {', '.join(map(repr, found))} contain images: choose one with "
            "--image-column NAME"
        )
    return (usual or found or [None])[0]


def cells_of(column: pyarrow.Array) -> list[Cell]:
    """Returns the bytes and the path of each cell of a column of images, without copying."""
    if not pyarrow.types.is_struct(column.type):
        return [(cell.as_buffer(), None) for cell in column]
    names = [column.type.field(i).name for i in range(column.type.num_fields)]
    data, path = (
        # Not `column.field`, which knows nothing of cells that are null as a whole.
        pyarrow.compute.struct_field(column, name) if name in names else [None] * len(column)
        for name in (_BYTES, _PATH)
    )
    return [
        (one if one is None else one.as_buffer(), where if where is None else where.as_py())
        for one, where in zip(data, path, strict=True)
    ]


def image_of(cell: Cell, folders: Sequence[Path]) -> bytes | pyarrow.Buffer:
    """Returns the bytes of an image file, from the cell or from the file that its path names.

    Args:
        cell: Bytes and path.
        folders: Folders that paths are relative to; the first one that has the file counts.

    Raises:
        ValueError: There is neither, it is too large, or the path leads out of the folders.
        OSError: The file cannot be read.
    """
    data, path = cell
    if data is None and path:
        data = read_regular(str(_find(path, folders)))
    if data is None:
        raise ValueError("the image is missing: the cell is empty")
    if len(data) > MAX_MEMBER_BYTES:
        raise ValueError(f"the image has {len(data):,} bytes; the limit is {MAX_MEMBER_BYTES:,}")
    return data


def _find(path: str, folders: Sequence[Path]) -> Path:
    try:
        found = [inside(folder, path) for folder in folders]
    except UnsafeNameError as error:
        raise ValueError(
            f"the cell has no bytes, only a path, and {error}; embed the images, or make their "
            "paths relative to the folder of the set"
        ) from error
    return next((one for one in found if one.is_file()), found[0])


def _is_image_feature(feature: object) -> bool:
    return isinstance(feature, dict) and feature.get("_type") == "Image"


def _begins_with_images(file: ArrowFile, name: str) -> bool:
    """Returns whether the first cell with bytes is an image; of paths alone, whether they are."""
    kind = file.schema.field(name).type
    if pyarrow.types.is_struct(kind) and kind.get_field_index(_BYTES) < 0:
        return False
    batches = file.batches([name], lambda batch: cells_of(batch.column(name)), rows=BATCH)
    cells = itertools.islice(itertools.chain.from_iterable(batches), _SNIFFED)
    data = next((data for data, _ in cells if data is not None), None)
    return data is not None and begins_like_image(bytes(data[:_START_BYTES]))
