# SPDX-License-Identifier: BSD-3-Clause
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from mlimages_jax import sharding


def test_large_leaves_are_cut_along_their_longest_axis_that_divides():
    mesh = sharding.make_mesh()
    shapes = {
        "kernel": jnp.zeros((3, 3, 16, 64)),  # 64 is the longest axis that 8 devices divide
        "odd": jnp.zeros((7, 9, 100)),  # none divides
        "tall": jnp.zeros((800, 12)),
        "small": jnp.zeros((8,)),
    }
    places = sharding.shard_parameters(shapes, mesh, min_size=100)
    specs = {name: place.spec for name, place in places.items()}
    assert specs == {
        "kernel": PartitionSpec(None, None, None, "data"),
        "odd": PartitionSpec(),
        "tall": PartitionSpec("data"),
        "small": PartitionSpec(),
    }
    everywhere = sharding.shard_parameters(shapes, mesh, min_size=None)
    assert all(place.is_fully_replicated for place in jax.tree.leaves(everywhere))


def test_groups_are_cut_where_the_devices_divide_them():
    mesh = sharding.make_mesh()
    places = sharding.shard_groups({"many": jnp.zeros((16, 3)), "few": jnp.zeros((4, 3))}, mesh)
    assert places["many"].spec == PartitionSpec("data")
    assert places["few"].is_fully_replicated


def test_the_numbers_are_in_the_message():
    mesh = sharding.make_mesh()
    with pytest.raises(ValueError, match="batch_size=100 is not divisible by 8 devices"):
        sharding.check_batch(batch_size=100, group_size=None, mesh=mesh)
    with pytest.raises(ValueError, match="batch_size=64 is not divisible by group_size=24"):
        sharding.check_batch(batch_size=64, group_size=24, mesh=mesh)
