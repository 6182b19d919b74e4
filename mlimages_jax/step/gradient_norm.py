# SPDX-License-Identifier: BSD-3-Clause
"""The norm of a gradient, in a form that XLA's CPU compiler does not slow down."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from mlimages_jax.models import platforms

_WINDOW = 32  # the side of the windows into which XLA for CPUs divides long sums


def gradient_norm(gradients: Any) -> Array:
    """Returns the Euclidean norm of all leaves together, a float32 scalar."""
    return jnp.sqrt(sum(_sum_of_squares(leaf) for leaf in jax.tree.leaves(gradients)))


def _sum_of_squares(x: Array) -> Array:
    """Sums the squares of an array.

    On CPUs, XLA first adds up windows of 32 x 32 elements and pads an axis that is no multiple of
    32, which can take ten times as long as the rest of a step: with 30,000 classes it does
    (docs/benchmarks/growth.md). In two slices, the large one needs no padding. On other devices
    this is not needed, and the axis may be sharded, so that slices would have to be exchanged.
    """
    last = x.shape[-1] if x.ndim > 1 else 0
    whole = last // _WINDOW * _WINDOW
    if not platforms.on_cpu() or whole in (0, last):
        return jnp.square(x).sum()
    return jnp.square(x[..., :whole]).sum() + jnp.square(x[..., whole:]).sum()
