# SPDX-License-Identifier: BSD-3-Clause
"""Trainings of one process that compute the same share what is traced and compiled."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest

from mlimages_jax.evaluation.evaluate import Evaluation
from mlimages_jax.inference import batch_predict
from mlimages_jax.settings import Train, build
from mlimages_jax.step import steps
from mlimages_jax.step.training_step import TrainingStep
from mlimages_jax.training import run

_AROUND = (  # fields that a training step does not depend on
    "data", "evaluation", "checkpoint", "input", "profile", "init_from", "total_steps",
    "log_every", "evaluate_every", "tracking",
)  # fmt: skip
_EVALUATION_STEP = Evaluation.__dict__["_step"].func
_COMPILED = batch_predict._compiled
_kept: dict[Any, Any] = {}


def _computed(config: Train) -> Train:
    """The settings that a training step is made from."""
    # Parts of a batch must divide the batches of all stages, which is checked each time.
    around = _AROUND if config.accumulate > 1 else (*_AROUND, "resize")
    loss = dataclasses.replace(config.loss, prior_bias=False)
    return dataclasses.replace(config, **dict.fromkeys(around), loss=loss)


def forget() -> None:
    """Drops all that is kept."""
    _kept.clear()


def _once(make: Callable[[], Any], *key: Any) -> Any:
    """What `make` returned when the key was first seen.

    Functions are part of keys, so that one that a test replaces is compiled anew.
    """
    key = tuple(map(_by_value, key))
    if key not in _kept:
        _kept[key] = make()
    return _kept[key]


def _by_value(part: Any) -> Any:
    """A part of a key, with what arrays hold in their place."""
    if isinstance(part, np.ndarray | jax.Array):
        return str(part.dtype), part.shape, np.asarray(part).tobytes()
    if type(part) is tuple:
        return tuple(map(_by_value, part))
    return part


class _SharedStep(TrainingStep):
    """A training step whose program and fresh state are kept."""

    def fresh_state(self, *, seed: int) -> Any:
        fresh = super().fresh_state
        values = _once(lambda: jax.device_get(fresh(seed=seed)), "fresh", id(self), seed)
        # Without copies, the step would write into what is kept: it donates its state.
        return jax.tree.map(
            lambda value, leaf: jax.device_put(value, leaf.sharding, may_alias=False),
            values, self.abstract_state,
        )  # fmt: skip

    def compile(self, stage: Any, *, max_labels: int) -> Any:
        sizes = (stage.image_size, stage.batch_size, max_labels)
        compile_ = super().compile
        return _once(
            lambda: compile_(stage, max_labels=max_labels), steps.train_step, id(self), sizes
        )


@pytest.fixture(scope="session", autouse=True)
def sharing_programs() -> Iterator[None]:
    """Trainings and evaluations of a room share their programs: its conftest imports this."""
    with pytest.MonkeyPatch.context() as patch:
        _share(patch)
        yield


def _share(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(run, "training_step", _training_step)
    patch.setattr(Evaluation, "_step", property(_evaluation_step))
    patch.setattr(batch_predict, "_compiled", _compiled)


def _training_step(config: Train, mesh: Any, **values: Any) -> TrainingStep:
    return _once(
        lambda: _SharedStep(*build.training_step(config, mesh, **values)),
        _computed(config), mesh, *sorted(values.items()),
    )  # fmt: skip


def _evaluation_step(evaluation: Evaluation) -> Any:
    return _once(
        lambda: _EVALUATION_STEP(evaluation),
        steps.eval_step, evaluation.model, _function(evaluation.loss), evaluation.missing_labels,
        evaluation.mesh,
    )  # fmt: skip


def _compiled(function: Any, weights: Any, images: Any) -> Any:
    leaves, structure = jax.tree.flatten((weights, images))
    return _once(
        lambda: _COMPILED(function, weights, images),
        _function(function), structure,
        *((leaf.shape, leaf.dtype, leaf.sharding) for leaf in leaves),
    )  # fmt: skip


def _function(function: Any) -> Any:
    """What partial functions that do the same are equal by."""
    if isinstance(function, functools.partial) and not function.args:
        return function.func, *sorted(function.keywords.items())
    return function
