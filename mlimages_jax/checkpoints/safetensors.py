# SPDX-License-Identifier: BSD-3-Clause
"""A trained network in one .safetensors file: its weights, its configuration and its classes."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mlimages_jax.checkpoints import array_digests
from mlimages_jax.files.atomic import complete_file

SUFFIX = ".safetensors"
_CHECKSUMS = "crc32c"  # among the metadata


class WeightsFileError(ValueError):
    """A file that is damaged, or none of this kind."""


class WeightsFile(NamedTuple):
    """What a file holds.

    Attributes:
        arrays: by names such as params/stage0_block0/conv1/kernel; kernels are [height, width, in,
            out].
        step: updates done.
        config: JSON values that were saved with the checkpoint.
        dictionary: text of the category file of the classes; "" where nobody gave it.
        probability: how logits become probabilities, in words, for readers without this package.
        usage: JSON values for the same readers, as `convert.description` makes them.
    """

    arrays: dict[str, np.ndarray]
    step: int
    config: dict[str, Any]
    dictionary: str
    probability: str
    usage: dict[str, Any]


def write(path: Path, content: WeightsFile) -> None:
    """Writes a file; what is not an array becomes its metadata, which are text."""
    metadata = {
        "step": str(content.step),
        "config": json.dumps(content.config),
        "dictionary": content.dictionary,
        "probability": content.probability,
        "usage": json.dumps(content.usage),
    }
    metadata[_CHECKSUMS] = json.dumps(_checksums(content.arrays, metadata))
    with complete_file(path) as unfinished:
        unfinished.write_bytes(save(content.arrays, metadata))


def read(path: Path) -> WeightsFile:
    """Reads a file; of one that others wrote, what its metadata lack is 0 or empty.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsFileError: it is damaged, or no safetensors file.
    """
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        _verify(arrays, metadata)
        return WeightsFile(
            arrays,
            step=int(metadata.get("step", 0)),
            config=json.loads(metadata.get("config", "{}")),
            dictionary=metadata.get("dictionary", ""),
            probability=metadata.get("probability", ""),
            usage=json.loads(metadata.get("usage", "{}")),
        )
    except (SafetensorError, ValueError, LookupError, TypeError) as error:
        raise WeightsFileError(f"{path} is damaged or no safetensors file: {error}") from error


def _verify(arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Compares with the checksums, if there are some: not in files that others wrote, or of old.

    Raises:
        ValueError: names what differs.
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
    """CRC-32C of each array, and under "" of the texts with all shapes and dtypes."""
    shapes = {name: [array.dtype.name, list(array.shape)] for name, array in arrays.items()}
    texts = json.dumps([metadata, shapes], sort_keys=True).encode()
    return {
        "": google_crc32c.value(texts),
        **{name: array_digests.crc32c(array) for name, array in arrays.items()},
    }
