# SPDX-License-Identifier: BSD-3-Clause
"""Validates the settings of a task and reports all problems at once, one per line."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlimages_jax.files.remote import is_remote
from mlimages_jax.settings.fields import Table, Values
from mlimages_jax.settings.relations import RELATIONS
from mlimages_jax.settings.rules import PathText, is_whole, nearest, shown
from mlimages_jax.settings.tasks import TABLES
from mlimages_jax.settings.training import NO_SET

_SOME_STEPS = 1_000_000  # for fractions of a run whose length is left open


class ConfigError(ValueError):
    """The configuration is invalid, or contradicts the checkpoint."""


def check(values: Mapping[str, Any], *, workdir: str | None = None) -> None:
    """Validates the settings of a task.

    Args:
        values: Values by name, including `task`; missing ones have their defaults.
        workdir: Where the task will run. If given, local paths must exist, except those that a run
            resumed in this workdir does not need. URLs are checked by the task itself.

    Raises:
        ConfigError: Settings are invalid; lists each with its value and what is allowed.
    """
    table = table_of(values)
    lines = problems(values, table)
    if workdir is not None and not lines:
        lines = _missing_paths(with_defaults(values, table), table, workdir)
    if len(lines) > 1:
        lines = [f"{len(lines)} settings are invalid:", *(f"  {line}" for line in lines)]
    if lines:
        raise ConfigError("\n".join(lines))


def table_of(values: Mapping[str, Any]) -> Table:
    """Returns the settings of the task named in `values`.

    Raises:
        ConfigError: The task is unknown.
    """
    task = values.get("task", "train")
    if not isinstance(task, str) or task not in TABLES:
        raise ConfigError(
            f"task={shown(task)} is none of {', '.join(TABLES)}{nearest(task, TABLES)}"
        )
    return TABLES[task]


def with_defaults(values: Mapping[str, Any], table: Table) -> Values:
    """Adds the defaults of missing settings after the values; omitted sections stay omitted."""
    defaults = {
        name: told.default
        for name, told in table.items()
        if not told.is_required and _is_used(told.optional_section, values)
    }
    return {**values, **{name: value for name, value in defaults.items() if name not in values}}


def resolve_values(values: Values, table: Table, total_steps: int) -> Values:
    """Converts values that the rules allow to those that the program uses."""
    resolve = {name: table[name].rule.resolve for name in values if name in table}
    return {
        name: resolve[name](value, total_steps) if name in resolve else value
        for name, value in values.items()
    }


def problems(values: Mapping[str, Any], table: Table) -> list[str]:
    """Returns one line for every setting that is unknown, missing or invalid."""
    lines = [
        f"{name}: there is no such setting{nearest_setting(name, table)}"
        for name in values
        if name not in table
    ]
    lines += [
        f"{name} is missing: {told.meaning} Give {told.rule.allowed}"
        for name, told in table.items()
        if told.is_required and name not in values and _is_used(told.optional_section, values)
    ]
    # Collected by name, because a setting that is wrong by itself needs no further line.
    wrong = {
        name: problem
        for name, told in table.items()
        if name in values and (problem := told.rule.problem(values[name]))
    }
    lines += [f"{name}={shown(values[name])}{problem}" for name, problem in wrong.items()]
    used = with_defaults(values, table).items()
    # Relations calculate with the values and would raise for one of the wrong type.
    good = {name: value for name, value in used if name in table and name not in wrong}
    return lines + _contradictions(good, table)


def nearest_setting(name: str, names: Any) -> str:
    """Tells like `nearest`, but compares the last parts of names if no full name is similar."""
    if told := nearest(name, names):
        return told
    last = {known.rpartition(".")[2]: known for known in names}
    told = nearest(name.rpartition(".")[2], last)
    return f"; did you mean {last[told.split(chr(39))[1]]!r}?" if told else ""


def _is_used(section: str, values: Mapping[str, Any]) -> bool:
    """Returns whether an optional section is selected, or one of its settings is given."""
    if not section or any(name.startswith(section) for name in values):
        return True
    owner, _, chosen = section.rstrip(".").rpartition(".")
    return values.get(f"{owner}.name") == chosen


def _contradictions(values: Values, table: Table) -> list[str]:
    """Returns problems between settings that are valid by themselves and not left open."""
    values = {name: value for name, value in values.items() if not table[name].rule.is_open(value)}
    # Left open by the tagger; then any length will do to compare fractions with each other.
    total = values.get("total_steps", _SOME_STEPS)
    used = resolve_values(values, table, total if is_whole(total) else 0)
    lines = []
    for names, problem in RELATIONS:
        if all(name in used for name in names):
            told = problem(*(used[name] for name in names))
            if told:
                lines.append(f"{names[0]}={shown(values[names[0]])}{told}")
    return lines


def _missing_paths(values: Values, table: Table, workdir: str) -> list[str]:
    not_needed = set()
    if values.get("which") == "new":
        not_needed.add("checkpoint")  # the task waits for it
    # In a bucket the check would need a request and credentials; the task checks it itself.
    if is_remote(workdir) or os.path.lexists(Path(workdir).expanduser() / "checkpoints"):
        not_needed.add("init_from")  # a restart resumes from its own checkpoint
    lines = [
        f"{name}={shown(values[name])}{problem}"
        for name, told in table.items()
        if isinstance(told.rule, PathText)
        and name not in not_needed
        and (problem := told.rule.missing(values[name]))
    ]
    may_be_open = ("quickstart", "thresholds")  # one draws its set, the other uses the training's
    if not values.get("data.folder", "given") and values.get("task") not in may_be_open:
        lines.append(f"data.folder='': give the folder of a built set: {NO_SET}")
    return lines
