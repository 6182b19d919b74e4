# SPDX-License-Identifier: BSD-3-Clause
"""Converts values to settings, and settings as given to the numbers that a run uses.

Steps may be fractions of `total_steps`, as in the published recipes here, so that a shorter run
follows the same recipe. At the published length they give the published numbers.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from mlimages_jax.files.paths import expanded
from mlimages_jax.settings.fields import Values, build, flatten
from mlimages_jax.settings.judge import check, resolve_values, table_of, with_defaults
from mlimages_jax.settings.renamed import with_new_names
from mlimages_jax.settings.tasks import TASKS, Settings

AnyTask = TypeVar("AnyTask", bound=Settings)


def parse(values: Mapping[str, Any], *, workdir: str | None = None) -> Settings:
    """Validates values and converts them to the settings of a task.

    Args:
        values: Values by old or current name, or nested; without `task` they are for a training.
            Missing ones have their defaults.
        workdir: As for `judge.check`.

    Raises:
        ConfigError: Settings are misspelt, missing or out of range; lists all of them.
        PathError: A path starts with the home folder of an unknown user.
    """
    flat = {"task": "train"} | with_new_names(flatten(values), where="the configuration")
    flat = {name: _at_home(value) for name, value in flat.items()}
    check(flat, workdir=workdir)
    return _made(flat)


def replaced(config: AnyTask, changes: Mapping[str, Any]) -> AnyTask:
    """Returns validated settings with some values changed, by dotted name.

    Raises:
        ConfigError: As for `parse`.
    """
    changes = with_new_names(changes, where="the configuration")
    return parse(flatten(config) | changes)  # type: ignore[return-value]  # of the same task


def checked(config: AnyTask) -> AnyTask:
    """Validates and resolves settings, for callers that created them without `parse`.

    Raises:
        ConfigError: Settings are out of range; lists all of them.
    """
    check(flatten(config))
    return resolved(config)


def resolved(config: AnyTask) -> AnyTask:
    """Converts fractions to steps and scales rates to the batch size; idempotent."""
    return at_length(config, getattr(config, "total_steps", 0))


def at_length(config: AnyTask, total_steps: int) -> AnyTask:
    """Resolves like `resolved`, with fractions of another length; keeps `total_steps` itself."""
    flat = flatten(config)
    values = resolve_values(flat, table_of(flat), total_steps)
    # A fraction of the run may fall between two saves.
    every = values.get("checkpoint.every")
    if every and 0 < flat["checkpoint.keep_every"] < 1:  # only a saved step can be kept
        values["checkpoint.keep_every"] = max(
            every, round(values["checkpoint.keep_every"] / every) * every
        )
    return _made(_with_linear_rule(values))  # type: ignore[return-value]  # of the same task


def _made(values: Values) -> Settings:
    """Creates the dataclass of a task from validated values."""
    return build(TASKS[values["task"]], with_defaults(values, table_of(values)))


def _at_home(value: Any) -> Any:
    return expanded(value) if isinstance(value, str) and value.startswith("~") else value


def _with_linear_rule(values: Values) -> Values:
    """Scales rates chosen for batches of `learning_rate_for` images to this batch size."""
    batch = values.get("learning_rate_for", 0)
    if not batch:
        return values
    factor = values["batch_size"] / batch  # Goyal et al., 2017, section 2.1
    return {
        name: value * factor if name.endswith("learning_rate") else value
        for name, value in values.items()
        # 0, so that resolving a second time does not scale again.
    } | {"learning_rate_for": 0}
