# SPDX-License-Identifier: BSD-3-Clause
"""Draws random numbers for a part of a batch: the same that the full batch would get.

Gradient accumulation computes a batch in parts. Its result must not depend on their number, so a
part takes its rows from the draws of the full batch instead of drawing anew.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import jax
from jax import Array


class RowsKey(NamedTuple):
    """A key for some rows of a larger array of draws.

    Attributes:
        key: A jax.random key.
        rows: Which rows, int32 [n].
        total: Number of rows of the larger array.
    """

    key: Array
    rows: Array
    total: int


Key: TypeAlias = Array | RowsKey


def uniform(key: Key, shape: Sequence[int]) -> Array:
    """Draws uniformly from [0, 1), float32, in a shape whose first axis are rows.

    Args:
        key: A jax.random key, or one for rows of a larger array.
        shape: Shape of the result; with a `RowsKey` its first axis must be as long as `rows`.
    """
    if not isinstance(key, RowsKey):
        return jax.random.uniform(key, shape)
    # Every row is drawn again for every part: a few numbers an image, or one a class and group,
    # which is nothing next to a forward pass, and needs no knowledge of the generator.
    return jax.random.uniform(key.key, (key.total, *shape[1:]))[key.rows]
