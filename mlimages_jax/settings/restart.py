# SPDX-License-Identifier: BSD-3-Clause
"""What a restart may change: a configuration against the one its checkpoint was trained with."""

import json
from typing import Any

from mlimages_jax.settings import ConfigError, Settings, Train, at_length, build, flatten
from mlimages_jax.settings.fields import nest
from mlimages_jax.settings.renamed import with_new_names
from mlimages_jax.settings.tasks import TABLES

# What a restart may change; everything else decides the result and must stay as it was saved.
FREE_TO_CHANGE = (
    "total_steps", "log_every", "evaluate_every", "evaluation", "checkpoint", "input",
    "sharding", "model.remat", "data.folder", "data.copy_to", "data.allow_change", "data_set",
    "task", "imported",
)  # fmt: skip


def values(config: Settings) -> dict[str, Any]:
    """The configuration as JSON values, as it is stored in a workdir and in checkpoints."""
    flat = flatten(config)
    if not flat.get("learning_rate_for"):  # resolved: the rates are for this batch size
        flat.pop("learning_rate_for", None)
    return json.loads(json.dumps(nest(flat)))


def values_as_long_as(saved: dict[str, Any], config: Train) -> dict[str, Any]:
    """The configuration as it would be in a run as long as that of a checkpoint.

    What follows `total_steps`, and was not set by hand, is then the checkpoint's, so that
    `check_unchanged` finds what was changed by hand; `change_of_schedule` says the rest.

    Args:
        saved: As in the checkpoint.
        config: As it was given, with its fractions of the run.
    """
    return values(at_length(config, saved.get("total_steps", config.total_steps)))


def change_of_schedule(saved: dict[str, Any], config: Train, *, step: int) -> str | None:
    """What the learning rate does in a run that goes on to another length; None: the same length.

    Args:
        saved: As in the checkpoint.
        config: Of the run that goes on.
        step: Updates done.
    """
    total, before = config.total_steps, saved.get("total_steps", config.total_steps)
    if total == before or step >= total or "schedule" not in saved:
        return None
    old = build.saved_schedule(saved["schedule"])
    new = build.schedule(config)
    first, planned, last = (float(rate) for rate in (new(step), old(step), new(total - 1)))
    text = (
        f"total_steps={total} where the checkpoint's run had {before}: the learning rate of step "
        f"{step + 1} is {first:.3g} (by that run's schedule {planned:.3g}), of the last {last:.3g}"
    )
    if first == last == 0:
        text += (
            ". NOTHING MORE IS LEARNED at a rate of 0: leave out what sets the schedule's steps, "
            "or begin another --workdir with --config.init_from"
        )
    return text


def check_unchanged(saved: dict[str, Any], current: dict[str, Any]) -> None:
    """Compares the configuration with the one a checkpoint was trained with.

    A checkpoint that another program trained says so by `imported`; of it only the values that
    are known are compared. What an older one does not say had its default.

    Raises:
        ConfigError: Lists every value that differs and decides the result.
    """
    old = with_new_names(flatten(saved), where="the checkpoint")
    new = with_new_names(flatten(current), where="the configuration")
    names = old.keys() if "imported" in saved else old.keys() | new.keys()
    lines = [
        f"  {name}: {_said(old, name)!r} in the checkpoint, {_said(new, name)!r} now"
        for name in sorted(names)
        if _said(old, name) != _said(new, name) and not _is_free(name)
    ]
    if lines:
        raise ConfigError(
            "the configuration differs from the checkpoint's; give the old values, or another "
            "--workdir to start anew (with --config.init_from to begin from these parameters):\n"
            + "\n".join(lines)
        )


def _is_free(name: str) -> bool:
    return any(name == free or name.startswith(f"{free}.") for free in FREE_TO_CHANGE)


def _said(values: dict[str, Any], name: str) -> Any:
    """The value of a setting; its default where nobody gave it, None where it has none."""
    told = TABLES["train"].get(name)
    default = None if told is None or told.is_required or told.optional_section else told.default
    value = values.get(name, default)
    return list(value) if isinstance(value, tuple) else value
