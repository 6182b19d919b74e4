# SPDX-License-Identifier: BSD-3-Clause
"""The mesh, and which array lives where on it."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh with the one axis `data` over all devices of all processes (or those given)."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (DATA_AXIS,), (AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh) -> NamedSharding:
    """The leading axis (examples or groups) is cut over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def check_batch(*, batch_size: int, group_size: int | None, mesh: Mesh) -> None:
    """Checks that devices and groups divide the batch.

    Raises:
        ValueError: with the numbers, when they do not.
    """
    if batch_size % mesh.size:
        raise ValueError(f"batch_size={batch_size} is not divisible by {mesh.size} devices")
    if group_size and batch_size % group_size:
        raise ValueError(f"batch_size={batch_size} is not divisible by group_size={group_size}")


def shard_parameters(tree: Any, mesh: Mesh, *, min_size: int | None) -> Any:
    """Shardings of parameters and optimizer slots.

    With `min_size` (elements) every leaf at least that large is cut over `data` along its longest
    axis that the number of devices divides (fully sharded data parallelism, ZeRO-3); other leaves,
    and all leaves when min_size is None, are replicated.
    """

    def choose(leaf: Any) -> NamedSharding:
        if min_size is None or np.prod(leaf.shape) < min_size:
            return replicated(mesh)
        axes = [axis for axis, length in enumerate(leaf.shape) if length % mesh.size == 0]
        if not axes:
            return replicated(mesh)
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, DATA_AXIS))

    return jax.tree.map(choose, tree)


def shard_groups(tree: Any, mesh: Mesh) -> Any:
    """Shardings of per-group arrays [G, ...]: cut by group where the devices divide G."""

    def choose(leaf: Any) -> NamedSharding:
        return by_example(mesh) if leaf.shape[0] % mesh.size == 0 else replicated(mesh)

    return jax.tree.map(choose, tree)
