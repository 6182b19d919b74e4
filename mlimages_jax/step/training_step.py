# SPDX-License-Identifier: BSD-3-Clause
"""Bundles everything that defines a run's training step, and compiles the step."""

import functools
from typing import Any, NamedTuple

import jax
import optax
from flax import linen as nn
from jax.sharding import AbstractMesh, Mesh

from mlimages_jax.data import pipeline
from mlimages_jax.distributed import sharding
from mlimages_jax.models import platforms
from mlimages_jax.step import steps
from mlimages_jax.step.compiler_options import compiler_options
from mlimages_jax.step.losses import Loss
from mlimages_jax.step.stages import Stage
from mlimages_jax.step.state import TrainState, create_state


class TrainingStep(NamedTuple):
    """The model, loss and optimizer of a run, with the layout of its state.

    Attributes:
        model: The network.
        loss: The loss of a batch.
        optimizer: Optimizer for `steps.train_step`.
        settings: Remaining keyword arguments of `steps.train_step`.
        initial: Keyword arguments shared by `state.abstract_state` and `state.create_state`.
        abstract_state: Shapes, dtypes and shardings of the state.
        mesh: Mesh that the state is sharded over.
    """

    model: nn.Module
    loss: Loss
    optimizer: optax.GradientTransformation
    settings: dict[str, Any]
    initial: dict[str, Any]
    abstract_state: TrainState
    mesh: Mesh | AbstractMesh

    def fresh_state(self, *, seed: int) -> TrainState:
        """Initialises the state before the first step."""
        return create_state(
            self.model, self.optimizer, seed=seed, abstract=self.abstract_state, **self.initial
        )

    def compile(self, stage: Stage, *, max_labels: int) -> Any:
        """Compiles the step for the sizes of a stage; the compiled step donates its input state."""
        assert isinstance(self.mesh, Mesh)  # plans use abstract meshes, and compile nothing
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state)
        step = jax.jit(
            functools.partial(
                steps.train_step,
                model=self.model,
                loss=self.loss,
                optimizer=self.optimizer,
                **self.settings,
            ),
            donate_argnums=0,
            # A compiled step accepts only the shardings it was lowered for. Left open, XLA may
            # return the new state with other ones, which the next call would refuse.
            out_shardings=(shardings, sharding.replicated(self.mesh)),
        )
        batch = pipeline.abstract_batch(
            stage.image_size, batch_size=stage.batch_size, max_labels=max_labels, mesh=self.mesh
        )
        # Ahead of time, so that a stage that cannot be compiled fails before the first step.
        with platforms.tracing_for(self.mesh.devices.flat):
            lowered = step.lower(self.abstract_state, batch)
        return lowered.compile(compiler_options=compiler_options(self.mesh.devices.flat))
