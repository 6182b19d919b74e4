# SPDX-License-Identifier: BSD-3-Clause
"""Reads and writes a trained network as one .safetensors file: weights, config and classes.

A file may come from anybody: it is arrays and text, of which nothing is executed, and what it can
make a reader allocate is bounded by its own size and by the limits below.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
from safetensors import SafetensorError, safe_open

from mlimages_jax.checkpoints import array_digests
from mlimages_jax.files.atomic import complete_file
from mlimages_jax.settings.renamed import saved_with_new_names

SUFFIX = ".safetensors"
_CHECKSUMS = "crc32c"  # key in the metadata
_MAX_HEADER = 32 << 20  # bytes; the names of 11,166 classes take 3 MB
_MAX_CONFIG, _MAX_USAGE = 1 << 20, 16 << 20  # characters; Python takes 20 times as much memory
_MAX_ARRAYS = 20_000  # those of ResNet-152 are 900
_MAX_NAME = 200  # characters
_MAX_STEP = 2**31 - 1
_DTYPES = {
    "float32": "F32", "float64": "F64", "float16": "F16", "int32": "I32", "int64": "I64",
    "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


class WeightsFileError(ValueError):
    """A file is damaged or not a safetensors file."""


class WeightsFile(NamedTuple):
    """The contents of a file.

    Attributes:
        arrays: Arrays by name, such as params/stage0_block0/conv1/kernel; kernels have the shape
            [height, width, in, out].
        step: Number of updates done.
        config: JSON values that were saved with the checkpoint.
        class_list: Text of the class list; "" if unknown.
        probability: Describes how logits become probabilities, for users without this package.
        usage: JSON values for the same users, from `convert.description`.
        thresholds: Text of thresholds.tsv; "" if none were found for these weights.
    """

    arrays: dict[str, np.ndarray]
    step: int
    config: dict[str, Any]
    class_list: str
    probability: str
    usage: dict[str, Any]
    thresholds: str = ""


def write(path: Path, content: WeightsFile) -> None:
    """Writes a file; everything but the arrays is stored in its metadata, as text.

    The same content gives the same bytes, so that a file that was shared before is recognised by
    its digest: the library would write the metadata in random order.
    """
    metadata = {
        "step": str(content.step),
        "config": json.dumps(content.config),
        "dictionary": content.class_list,  # the key of version 0.1
        "probability": content.probability,
        "usage": json.dumps(content.usage),
    }
    if content.thresholds:
        metadata["thresholds"] = content.thresholds
    metadata[_CHECKSUMS] = json.dumps(_checksums(content.arrays, metadata))
    with complete_file(path) as unfinished, unfinished.open("wb") as file:
        file.write(_header(content.arrays, metadata))
        for array in content.arrays.values():
            file.write(np.ascontiguousarray(array).data)


def _header(arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """Bytes before the arrays: the length of a JSON object, and the object, in multiples of 8."""
    entries: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        entries[name] = {
            "dtype": _DTYPES[array.dtype.name],
            "shape": array.shape,
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read(path: Path) -> WeightsFile:
    """Reads a file; values missing from the metadata of files by other tools are 0 or empty.

    Raises:
        FileNotFoundError: The file does not exist.
        WeightsFileError: The file is damaged or not a safetensors file.
    """
    try:
        _check_header(path)
        with safe_open(path, "numpy") as file:
            metadata, names = file.metadata() or {}, file.keys()
            _check_names(names)
            arrays = {name: file.get_tensor(name) for name in names}
        _verify(arrays, metadata)
        return WeightsFile(
            arrays,
            step=_step(metadata.get("step", "0")),
            config=_config(metadata.get("config", "{}"), where=str(path)),
            class_list=metadata.get("dictionary", ""),
            probability=metadata.get("probability", ""),
            usage=_values(metadata.get("usage", "{}"), "usage", at_most=_MAX_USAGE),
            thresholds=metadata.get("thresholds", ""),
        )
    except (
        SafetensorError, ValueError, LookupError, TypeError, AttributeError, RecursionError,
        OverflowError,
    ) as error:  # fmt: skip
        raise WeightsFileError(f"{path} is damaged or not a safetensors file: {error}") from error


def _check_header(path: Path) -> None:
    """Refuses a header that is longer than the file, or than that of any network."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        actual = file.seek(0, 2)
    if size > min(_MAX_HEADER, actual - 8):
        raise ValueError(f"its header claims {size:,} bytes, of {actual:,} in the file")


def _check_names(names: list[str]) -> None:
    """Refuses names that do not make a tree of modules, and more of them than a network has."""
    if len(names) > _MAX_ARRAYS:
        raise ValueError(f"it has {len(names):,} arrays")
    longest = max(map(len, names), default=0)
    if longest > _MAX_NAME:
        raise ValueError(f"an array of it has a name of {longest:,} characters")
    parts = [name.split("/") for name in names]
    modules = {"/".join(part[:i]) for part in parts for i in range(1, len(part))}
    if both := modules.intersection(names):
        raise ValueError(f"{min(both)} is both an array and a module with arrays")


def _step(text: str) -> int:
    step = int(text)
    if not 0 <= step <= _MAX_STEP:
        raise ValueError(f"step {step} is outside 0 to {_MAX_STEP}")
    return step


def _config(text: str, *, where: str) -> dict[str, Any]:
    return saved_with_new_names(_values(text, "config", at_most=_MAX_CONFIG), where=where)


def _values(text: str, name: str, *, at_most: int) -> dict[str, Any]:
    if len(text) > at_most:
        raise ValueError(f"its {name} has {len(text):,} characters")
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError(f"its {name} is not an object")
    return values


def _verify(arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Verifies the checksums, which files of other tools and of older versions do not have.

    Raises:
        ValueError: An array or the metadata does not match its checksum.
    """
    if _CHECKSUMS not in metadata:
        return
    kept = json.loads(metadata.pop(_CHECKSUMS))
    found = _checksums(arrays, metadata)
    for name in sorted(kept.keys() | found.keys()):
        if kept.get(name) != found.get(name):
            what = f"the array {name}" if name else "its metadata"
            raise ValueError(f"{what} does not match its checksum")


def _checksums(arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> dict[str, int]:
    """Returns the CRC-32C of each array, and at "" of the metadata with all shapes and dtypes."""
    shapes = {name: [array.dtype.name, list(array.shape)] for name, array in arrays.items()}
    # Shapes belong to the checksum, as reshaped or cast arrays can have the same bytes.
    texts = json.dumps([metadata, shapes], sort_keys=True).encode()
    return {
        "": google_crc32c.value(texts),
        **{name: array_digests.crc32c(array) for name, array in arrays.items()},
    }
