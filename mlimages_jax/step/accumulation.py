# SPDX-License-Identifier: BSD-3-Clause
"""Gradient accumulation: the step of a whole batch, computed in parts one after the other."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Accumulation(NamedTuple):
    """The division of a batch into parts.

    Attributes:
        parts: Number of parts k, computed one after the other.
        unit: Number of consecutive rows that must stay together: a multiple of the groups of
            BatchNorm and of the loss.
        devices: Number of devices that a batch is sharded over.
    """

    parts: int
    unit: int
    devices: int

    def check(self, batch_size: int) -> None:
        """Checks that parts of equal size keep all groups whole.

        Raises:
            ValueError: They do not; the message gives the numbers.
        """
        rows = self.parts * self.devices
        if batch_size % rows:
            raise ValueError(
                f"batch_size={batch_size} is not divisible by accumulate={self.parts} times "
                f"{self.devices} devices"
            )
        if batch_size // self.parts % self.unit:
            raise ValueError(
                f"batch_size={batch_size} in accumulate={self.parts} parts leaves "
                f"{batch_size // self.parts} images a part, not a multiple of the groups of "
                f"{self.unit} images"
            )

    def blocks(self, batch_size: int) -> int:
        """Returns the number of blocks of consecutive rows in a batch, each with rows of all parts.

        With a block a device, a part has rows of every device and nothing moves between them. Where
        a group spans several devices, fewer blocks keep it whole, and the images of a part move.
        """
        most = batch_size // (self.parts * self.unit)  # so that each has a unit of every part
        # The greatest common divisor, so that every device has rows of one block only.
        return math.gcd(self.devices, most)

    def split(self, rows: Array, batch_size: int) -> Array:
        """Divides [N, ...] into parts [k, N / k, ...].

        Args:
            rows: Arrays of the batch, or of its groups: N is the batch size or a fraction of it.
            batch_size: Number of images in the batch.
        """
        blocks = self.blocks(batch_size)
        length = rows.shape[0] // (blocks * self.parts)
        divided = rows.reshape(blocks, self.parts, length, *rows.shape[1:])
        return jnp.swapaxes(divided, 0, 1).reshape(self.parts, blocks * length, *rows.shape[1:])

    def join(self, parts: Array, batch_size: int) -> Array:
        """Joins parts [k, N / k, ...] to [N, ...], the inverse of `split`."""
        blocks = self.blocks(batch_size)
        length = parts.shape[1] // blocks
        divided = parts.reshape(self.parts, blocks, length, *parts.shape[2:])
        return jnp.swapaxes(divided, 0, 1).reshape(-1, *parts.shape[2:])


def mean_over_parts(function: Callable[[Any], tuple[Any, Any]], parts: Any) -> tuple[Any, Any]:
    """Calls a function for one part after the other.

    Args:
        function: Maps a part to (values to average, values to keep).
        parts: Tree of arrays [k, ...].

    Returns:
        The mean of the first values, and the second ones stacked, [k, ...]. Sums are float32 and in
        the order of the parts, so the result is the same after a restart.
    """
    shapes, _ = jax.eval_shape(function, jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    # scan and not a Python loop: the program contains the network once, and XLA cannot run two
    # parts at a time, whose activations would need the memory that was to be saved.
    def add(total: Any, part: Any) -> tuple[Any, Any]:
        averaged, kept = function(part)
        return jax.tree.map(jnp.add, total, averaged), kept

    total, kept = jax.lax.scan(add, zeros, parts)
    count = jax.tree.leaves(parts)[0].shape[0]
    return jax.tree.map(lambda x: x / count, total), kept
