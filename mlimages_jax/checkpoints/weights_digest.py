# SPDX-License-Identifier: BSD-3-Clause
"""The identity of a network's weights: results are kept under it, not under a path."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util


def weights_digest(weights: Mapping[str, Any]) -> str:
    """A digest of arrays with their names, shapes and dtypes; the same on all processes.

    A second for ResNet-101, beside the minutes of what it is computed for.

    Args:
        weights: nested dicts of arrays, every one of them whole on this process.
    """
    digest = hashlib.sha256()
    flat = traverse_util.flatten_dict(dict(weights), sep="/")
    for name in sorted(flat):
        array = np.ascontiguousarray(jax.device_get(flat[name]))
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.view(np.uint8).reshape(-1).data if array.size else b"")
    return digest.hexdigest()[:32]
