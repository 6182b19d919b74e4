# SPDX-License-Identifier: BSD-3-Clause
"""The device mesh and the shardings of arrays on it."""

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"
# What is sharded over the devices: nothing; momentum and EMA weights (ZeRO-1, Rajbhandari et al.,
# 2020); these and the parameters (ZeRO-3, fully sharded data parallelism).
MODES = ("replicated", "optimizer", "full")


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """Returns a mesh with the single axis `data` over all devices of all processes, or given ones.

    Devices are ordered by process, so that each process owns consecutive rows of a batch.
    `jax.make_mesh` would order them by the links between TPU chips instead, which interleaves
    processes. All-reduces over the full mesh do not need that order.
    """
    devices = jax.devices() if devices is None else devices
    ordered = sorted(devices, key=lambda device: (device.process_index, device.id))
    # Not Explicit, the default: it refuses convolutions with sharded kernels.
    return Mesh(np.array(ordered), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def planned_mesh(devices: int) -> AbstractMesh:
    """Returns a mesh of devices that need not exist, to compute shapes and sizes."""
    return AbstractMesh((devices,), (DATA_AXIS,), (AxisType.Auto,))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Returns the sharding that stores the full array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Returns the sharding that splits the leading axis (examples or groups) over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def local_rows(array: jax.Array) -> np.ndarray:
    """Returns this process's rows [n, ...] of an array [N, ...] sharded along N, in order."""
    # Every shard of a replicated array has all rows, and joining them would repeat the rows.
    if array.is_fully_replicated:
        return np.asarray(jax.device_get(array))
    # jax lists shards by device, whose order need not be that of the rows.
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([jax.device_get(shard.data) for shard in shards])


def check_batch(*, batch_size: int, group_size: int | None, mesh: Mesh | AbstractMesh) -> None:
    """Checks that devices and groups divide the batch.

    Raises:
        ValueError: They do not; the message gives the numbers.
    """
    if batch_size % mesh.size:
        raise ValueError(f"batch_size={batch_size} is not divisible by {mesh.size} devices")
    if group_size and batch_size % group_size:
        raise ValueError(f"batch_size={batch_size} is not divisible by group_size={group_size}")


def replicated_tree(tree: Any, mesh: Mesh | AbstractMesh) -> Any:
    """Shardings that replicate every leaf."""
    return jax.tree.map(lambda _: replicated(mesh), tree)


def sharded_tree(tree: Any, mesh: Mesh | AbstractMesh, *, min_size: int) -> Any:
    """Shardings that split every leaf of at least `min_size` elements over the devices.

    A leaf is split along its longest axis that is divisible by the number of devices. Leaves
    without such an axis and smaller leaves are replicated.
    """

    def choose(leaf: Any) -> NamedSharding:
        if math.prod(leaf.shape) < min_size:
            return replicated(mesh)
        axes = [axis for axis, length in enumerate(leaf.shape) if length % mesh.size == 0]
        if not axes:
            return replicated(mesh)
        # Nearly always the channels; the sides of a kernel are too short to be divisible.
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, DATA_AXIS))

    return jax.tree.map(choose, tree)


def shard_groups(tree: Any, mesh: Mesh | AbstractMesh) -> Any:
    """Shardings of per-group arrays [G, ...]: split by group if the devices divide G."""

    def choose(leaf: Any) -> NamedSharding:
        return by_example(mesh) if leaf.shape[0] % mesh.size == 0 else replicated(mesh)

    return jax.tree.map(choose, tree)


def bytes_per_device(tree: Any) -> int:
    """Bytes on one device of a tree of arrays, or of shapes with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
