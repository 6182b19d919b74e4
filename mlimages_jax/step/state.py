# SPDX-License-Identifier: BSD-3-Clause
"""The training state, one frozen tree, and its sharded initialisation."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct
from jax import Array
from jax.sharding import AbstractMesh, Mesh

from mlimages_jax.distributed import sharding
from mlimages_jax.step import losses
from mlimages_jax.step.compiler_options import compiler_options


@functools.lru_cache(maxsize=16)  # tracing ResNet-101 takes half a second
def abstract_variables(model: nn.Module, image_size: int) -> dict[str, Any]:
    """Returns the shapes and dtypes of a network's variables, {"params", "batch_stats"}."""
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


@struct.dataclass
class TrainState:
    """Everything that a training step changes.

    Attributes:
        step: Number of updates done, int32 scalar; also the position in the data.
        params: Nested dict of float32 arrays.
        batch_stats: Running averages of BatchNorm, nested dict of float32 arrays.
        opt_state: Slots of the optimizer.
        class_counts: Counts of the weighted loss [G, C]; None for other losses.
        ema: EMA weights {"params", "batch_stats"}; None if disabled.
    """

    step: Array
    params: Any
    batch_stats: Any
    opt_state: Any
    class_counts: losses.ClassCounts | None
    ema: Any = None

    @property
    def weights(self) -> dict[str, Any]:
        """{"params", "batch_stats"}, the variables of the model."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def abstract_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    image_size: int,
    count_groups: int | None,
    keep_ema: bool = False,
    mesh: Mesh | AbstractMesh,
    mode: str = "replicated",
    min_size: int = 0,
) -> TrainState:
    """Returns shapes, dtypes and shardings of the state, without allocating it.

    Args:
        model: Network with an attribute `num_classes`, called as `model.init(key, images)`.
        optimizer: Optimizer of the parameters.
        image_size: Side of the images in pixels.
        count_groups: Number of groups of the weighted loss; None if the loss has no counts.
        keep_ema: Whether to keep EMA weights.
        mesh: Mesh that the state will be sharded over.
        mode: One of `sharding.MODES`.
        min_size: Minimum number of elements of a leaf to shard; smaller ones are replicated.

    Raises:
        ValueError: The mode is unknown.
    """
    if mode not in sharding.MODES:
        raise ValueError(f"mode={mode!r} is none of {', '.join(sharding.MODES)}")
    shapes = jax.eval_shape(
        functools.partial(_state_of, model, optimizer, count_groups, keep_ema),
        abstract_variables(model, image_size),
    )
    everywhere: Any = sharding.replicated(mesh)  # typed Any: the tree below contains shardings
    shard = functools.partial(sharding.sharded_tree, mesh=mesh, min_size=min_size)
    replicate = functools.partial(sharding.replicated_tree, mesh=mesh)
    shard_slots, shard_params = mode != "replicated", mode == "full"
    shardings = TrainState(
        step=everywhere,
        params=(shard if shard_params else replicate)(shapes.params),
        batch_stats=replicate(shapes.batch_stats),  # small, and needed in full by every device
        opt_state=(shard if shard_slots else replicate)(shapes.opt_state),
        # With the rows of their groups, so that the loss needs no communication.
        class_counts=sharding.shard_groups(shapes.class_counts, mesh),
        ema=(shard if shard_slots else replicate)(shapes.ema),
    )
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        shapes,
        shardings,
    )


def bytes_by_part(state: TrainState) -> dict[str, int]:
    """Returns the bytes on one device of a state or of `abstract_state`, by part."""
    parts = {
        "parameters": state.params,
        "statistics": state.batch_stats,
        "optimizer": state.opt_state,
        "EMA weights": state.ema,
        "class counts": state.class_counts,
    }
    return {name: sharding.bytes_per_device(tree) for name, tree in parts.items()}


def memory_line(state: TrainState) -> str:
    """Returns a log line with the memory of a state on one device."""
    parts = bytes_by_part(state)
    listed = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in parts.items() if size)
    return f"the state takes {sum(parts.values()) / 1e6:.1f} MB per device: {listed}"


def create_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    image_size: int,
    count_groups: int | None,
    keep_ema: bool = False,
    abstract: TrainState,
) -> TrainState:
    """Initialises a state; every leaf is created on the devices that will store it.

    Args:
        model: As for `abstract_state`.
        optimizer: As for `abstract_state`.
        seed: Seed of the parameters.
        image_size: As for `abstract_state`.
        count_groups: As for `abstract_state`.
        keep_ema: As for `abstract_state`.
        abstract: Result of `abstract_state`, which gives the shardings.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    # In one program: drawn on the host, a large network would pass through its memory first.
    initialise = jax.jit(
        lambda key: _initialise(model, optimizer, image_size, count_groups, keep_ema, key),
        out_shardings=shardings,
        compiler_options=compiler_options(abstract.step.sharding.device_set),
    )
    return initialise(jax.random.key(seed))


def _initialise(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_size: int,
    count_groups: int | None,
    keep_ema: bool,
    key: Array,
) -> TrainState:
    # One image suffices, since no parameter depends on the batch size.
    variables = model.init(key, jnp.zeros((1, image_size, image_size, 3)))
    return _state_of(model, optimizer, count_groups, keep_ema, variables)


def _state_of(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    count_groups: int | None,
    keep_ema: bool,
    variables: Mapping[str, Any],
) -> TrainState:
    counts = losses.initial_counts(count_groups, model.num_classes) if count_groups else None
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
        class_counts=counts,
        ema=dict(variables) if keep_ema else None,
    )


def with_weights(state: TrainState, weights: dict[str, Any]) -> TrainState:
    """Replaces parameters and running statistics in a state, and restarts the EMA from them.

    Args:
        state: State that keeps everything else, including modules missing from `weights`.
        weights: {"params", "batch_stats"}; replaced module by module.
    """
    merged = {name: {**tree, **weights[name]} for name, tree in state.weights.items()}
    # Copies, because the step donates its state: a buffer that occurs twice in it cannot be
    # donated.
    ema = None if state.ema is None else jax.tree.map(jnp.copy, merged)
    params, batch_stats = merged["params"], merged["batch_stats"]
    return dataclasses.replace(state, params=params, batch_stats=batch_stats, ema=ema)


def with_head_bias(state: TrainState, bias: np.ndarray, *, head: str) -> TrainState:
    """Sets the bias of the classifier, float32 [C], and restarts the EMA from it.

    Args:
        state: State that keeps everything else.
        bias: The new values.
        head: Name of the classifier's module.
    """
    old = state.params[head]["bias"]
    # Each process has the full bias, and contributes the shards of its own devices.
    new = jax.make_array_from_callback(old.shape, old.sharding, lambda index: bias[index])
    module = {**state.params[head], "bias": new}
    return with_weights(state, {"params": {head: module}, "batch_stats": {}})
