# SPDX-License-Identifier: BSD-3-Clause
"""From a configuration to the jitted training step and the state it changes."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import AbstractMesh, Mesh
from ml_collections import ConfigDict

from mlimages_jax.data import pipeline
from mlimages_jax.distributed import sharding
from mlimages_jax.settings import build
from mlimages_jax.step import steps
from mlimages_jax.step.losses import Loss
from mlimages_jax.step.phases import Phase
from mlimages_jax.step.state import TrainState, abstract_state, create_state


class TrainingStep(NamedTuple):
    """What a configuration trains, and how.

    Attributes:
        model: the network.
        loss: of a batch.
        optimizer: as for `steps.train_step`.
        settings: the other arguments of `steps.train_step`.
        initial: what `state.abstract_state` and `state.create_state` need, in the same words.
        like: shapes, dtypes and shardings of the state.
        mesh: where it lives.
    """

    model: nn.Module
    loss: Loss
    optimizer: optax.GradientTransformation
    settings: dict[str, Any]
    initial: dict[str, Any]
    like: TrainState
    mesh: Mesh | AbstractMesh

    def fresh_state(self, *, seed: int) -> TrainState:
        """The state before the first step."""
        return create_state(self.model, self.optimizer, seed=seed, like=self.like, **self.initial)

    def compile(self, phase: Phase, *, max_labels: int) -> Any:
        """The step for the sizes of a phase; it takes the state's memory."""
        assert isinstance(self.mesh, Mesh)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.like)
        step = jax.jit(
            functools.partial(
                steps.train_step,
                model=self.model,
                loss=self.loss,
                optimizer=self.optimizer,
                **self.settings,
            ),
            donate_argnums=0,
            out_shardings=(shardings, sharding.replicated(self.mesh)),
        )
        batch = pipeline.abstract_batch(
            phase.image_size, batch_size=phase.batch_size, max_labels=max_labels, mesh=self.mesh
        )
        return step.lower(self.like, batch).compile()


def make_training_step(
    config: ConfigDict, mesh: Mesh | AbstractMesh, *, num_classes: int, unlisted: float = 0.0
) -> TrainingStep:
    """Reads a configuration of configs/.

    Args:
        config: see configs/pretrain.py.
        mesh: of devices, or of devices that need not exist, which nothing can be compiled for.
        num_classes: C.
        unlisted: the target of a class that a picture does not list, 0 or -1.

    Raises:
        ConfigError: for values that cannot be.
    """
    model = build.model(config, num_classes=num_classes)
    loss, count_groups = build.loss(config)
    side = config.image_size
    images = jnp.zeros((1, side, side, 3))
    parameters = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    optimizer = build.optimizer(config, parameters)
    initial = {
        "image_size": side,
        "count_groups": count_groups,
        "averaged": config.optimizer.average_decay > 0,
    }
    return TrainingStep(
        model=model,
        loss=loss,
        optimizer=optimizer,
        settings={
            "schedule": build.schedule(config),
            "augmentation": build.augmentation(config),
            "mixing": build.mixup_and_cutmix(config),
            "factors": build.learning_rate_factors(config, parameters),
            "average_decay": config.optimizer.average_decay,
            "seed": config.seed,
            "unlisted": unlisted,
        },
        initial=initial,
        like=abstract_state(model, optimizer, mesh=mesh, **build.state_sharding(config), **initial),
        mesh=mesh,
    )
