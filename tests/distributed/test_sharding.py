# SPDX-License-Identifier: BSD-3-Clause
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from mlimages_jax.distributed import sharding


def test_large_leaves_are_split_along_their_longest_axis_that_divides():
    mesh = sharding.make_mesh()
    shapes = {
        "kernel": jnp.zeros((3, 3, 16, 64)),  # 64 is the longest axis that 8 devices divide
        "odd": jnp.zeros((7, 9, 100)),  # none divides
        "tall": jnp.zeros((800, 12)),
        "small": jnp.zeros((8,)),
    }
    shardings = sharding.sharded_tree(shapes, mesh, min_size=100)
    specs = {name: each.spec for name, each in shardings.items()}
    assert specs == {
        "kernel": PartitionSpec(None, None, None, "data"),
        "odd": PartitionSpec(),
        "tall": PartitionSpec("data"),
        "small": PartitionSpec(),
    }
    everywhere = sharding.replicated_tree(shapes, mesh)
    assert all(each.is_fully_replicated for each in jax.tree.leaves(everywhere))


def test_bytes_are_those_that_the_first_device_holds():
    mesh = sharding.make_mesh()
    arrays = {"kernel": jnp.zeros((80, 3)), "bias": jnp.zeros(3, jnp.bfloat16)}
    arrays = jax.device_put(arrays, sharding.sharded_tree(arrays, mesh, min_size=100))
    held = [leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(arrays)]
    assert sharding.bytes_per_device(arrays) == sum(held) == 80 * 3 * 4 // 8 + 3 * 2


def test_a_planned_mesh_needs_no_devices():
    mesh = sharding.planned_mesh(512)
    shape = jax.ShapeDtypeStruct((1024, 3), jnp.float32, sharding=sharding.by_example(mesh))
    assert sharding.bytes_per_device([shape]) == 2 * 3 * 4
    with pytest.raises(ValueError, match="batch_size=100 is not divisible by 512 devices"):
        sharding.check_batch(batch_size=100, group_size=None, mesh=mesh)


def test_groups_are_split_where_the_devices_divide_them():
    mesh = sharding.make_mesh()
    shardings = sharding.shard_groups({"many": jnp.zeros((16, 3)), "few": jnp.zeros((4, 3))}, mesh)
    assert shardings["many"].spec == PartitionSpec("data")
    assert shardings["few"].is_fully_replicated


def test_the_numbers_are_in_the_message():
    mesh = sharding.make_mesh()
    with pytest.raises(ValueError, match="batch_size=100 is not divisible by 8 devices"):
        sharding.check_batch(batch_size=100, group_size=None, mesh=mesh)
    with pytest.raises(ValueError, match="batch_size=64 is not divisible by group_size=24"):
        sharding.check_batch(batch_size=64, group_size=24, mesh=mesh)


def test_the_devices_of_a_process_stand_together():
    """In whatever order they come: ids of processes may interleave, as on TPU slices."""

    class Device:
        def __init__(self, process_index, number):
            self.process_index, self.id = process_index, number
            self.platform = self.device_kind = "tpu"
            self.client = None

    given = [Device(number % 2, number) for number in (3, 0, 2, 1)]
    mesh = sharding.make_mesh(given)
    found = [(device.process_index, device.id) for device in mesh.devices.flat]
    assert found == [(0, 0), (0, 2), (1, 1), (1, 3)]


def test_rows_of_a_sharded_array_come_in_order():
    mesh = sharding.make_mesh()
    array = jax.device_put(np.arange(16), sharding.by_example(mesh))
    np.testing.assert_array_equal(sharding.local_rows(array), np.arange(16))
