# SPDX-License-Identifier: BSD-3-Clause
"""Everything a training step changes, in one frozen tree, and its sharded initialisation."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jax import Array
from jax.sharding import AbstractMesh, Mesh

from mlimages_jax.distributed import sharding
from mlimages_jax.step import losses


@struct.dataclass
class TrainState:
    """The state of training.

    Attributes:
        step: int32 scalar, updates done. It is also the position in the data.
        params: nested dict of float32 arrays.
        batch_stats: BatchNorm's running averages, nested dict of float32 arrays.
        opt_state: the optimizer's slots.
        class_counts: counts of the weighted loss [G, C]; None for other losses.
        averages: exponential moving averages {"params", "batch_stats"}; None where none are kept.
    """

    step: Array
    params: Any
    batch_stats: Any
    opt_state: Any
    class_counts: losses.ClassCounts | None
    averages: Any = None

    @property
    def weights(self) -> dict[str, Any]:
        """{"params", "batch_stats"}: what a prediction needs."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def abstract_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    image_size: int,
    count_groups: int | None,
    averaged: bool = False,
    mesh: Mesh | AbstractMesh,
    mode: str = "replicated",
    min_size: int = 0,
) -> TrainState:
    """Shapes, dtypes and shardings of the state, without allocating it.

    Args:
        model: called as `model.init(key, images)`; has `num_classes`.
        optimizer: of the parameters.
        image_size: side of the images.
        count_groups: groups of the weighted loss; None when the loss keeps no counts.
        averaged: whether averages of the weights are kept.
        mesh: where the state will live.
        mode: one of `sharding.MODES`.
        min_size: elements from which on a leaf is cut, where the mode cuts it.

    Raises:
        ValueError: for an unknown mode.
    """
    if mode not in sharding.MODES:
        raise ValueError(f"mode={mode!r} is none of {', '.join(sharding.MODES)}")
    shapes = jax.eval_shape(
        lambda: _initialise(model, optimizer, image_size, count_groups, averaged, jax.random.key(0))
    )
    place: Any = sharding.replicated(mesh)  # the tree below holds shardings, not arrays
    cut = functools.partial(sharding.cut, mesh=mesh, min_size=min_size)
    whole = functools.partial(sharding.whole, mesh=mesh)
    cut_slots, cut_params = mode != "replicated", mode == "full"
    shardings = TrainState(
        step=place,
        params=(cut if cut_params else whole)(shapes.params),
        batch_stats=whole(shapes.batch_stats),
        opt_state=(cut if cut_slots else whole)(shapes.opt_state),
        class_counts=sharding.shard_groups(shapes.class_counts, mesh),
        averages=(cut if cut_slots else whole)(shapes.averages),
    )
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        shardings,
    )


def bytes_by_part(state: TrainState) -> dict[str, int]:
    """What one device holds of a state (or of `abstract_state`), by the names people use."""
    parts = {
        "parameters": state.params,
        "statistics": state.batch_stats,
        "optimizer": state.opt_state,
        "averages": state.averages,
        "class counts": state.class_counts,
    }
    return {name: sharding.bytes_per_device(tree) for name, tree in parts.items()}


def memory_line(state: TrainState) -> str:
    """What a device holds of a state, in a line for the log."""
    parts = bytes_by_part(state)
    listed = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in parts.items() if size)
    return f"a device holds {sum(parts.values()) / 1e6:.1f} MB of the state: {listed}"


def create_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    image_size: int,
    count_groups: int | None,
    averaged: bool = False,
    like: TrainState,
) -> TrainState:
    """A fresh state, every leaf made on the devices that will hold it.

    Args:
        like: from `abstract_state`, gives the shardings.
        seed: of the parameters.
        model: as for `abstract_state`.
        optimizer: as for `abstract_state`.
        image_size: as for `abstract_state`.
        count_groups: as for `abstract_state`.
        averaged: as for `abstract_state`.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
    initialise = jax.jit(
        lambda key: _initialise(model, optimizer, image_size, count_groups, averaged, key),
        out_shardings=shardings,
    )
    return initialise(jax.random.key(seed))


def _initialise(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_size: int,
    count_groups: int | None,
    averaged: bool,
    key: Array,
) -> TrainState:
    variables = model.init(key, jnp.zeros((1, image_size, image_size, 3)))
    counts = losses.initial_counts(count_groups, model.num_classes) if count_groups else None
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
        class_counts=counts,
        averages=dict(variables) if averaged else None,
    )


def with_weights(state: TrainState, weights: dict[str, Any]) -> TrainState:
    """The state with other parameters and statistics, from which averages start too.

    Args:
        state: gives everything else, also the modules that `weights` lacks.
        weights: {"params", "batch_stats"}, module by module.
    """
    merged = {name: {**tree, **weights[name]} for name, tree in state.weights.items()}
    averages = None if state.averages is None else jax.tree.map(jnp.copy, merged)
    params, batch_stats = merged["params"], merged["batch_stats"]
    return dataclasses.replace(state, params=params, batch_stats=batch_stats, averages=averages)
