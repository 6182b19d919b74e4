# SPDX-License-Identifier: BSD-3-Clause
"""Compares a configuration with that of its checkpoint: which settings a restart may change."""

import json
from typing import Any

from mlimages_jax.settings import ConfigError, Settings, Train, at_length, build, flatten
from mlimages_jax.settings.fields import nest
from mlimages_jax.settings.renamed import with_new_names
from mlimages_jax.settings.tasks import TABLES

# All other settings determine the result, so a restart must not change them.
FREE_TO_CHANGE = (
    "total_steps", "log_every", "evaluate_every", "evaluation", "checkpoint", "early_stopping",
    "input", "sharding", "model.remat", "accumulate", "data.folder", "data.copy_to",
    "data.allow_change", "data_set", "task", "imported", "profile", "tracking", "compile_only",
)  # fmt: skip


def values(config: Settings) -> dict[str, Any]:
    """Returns the configuration as JSON values, as stored in workdirs and checkpoints."""
    flat = flatten(config)
    if not flat.get("learning_rate_for"):  # resolved: rates are already scaled to the batch size
        flat.pop("learning_rate_for", None)
    # Through JSON and back, so that tuples compare equal to the lists of a checkpoint.
    return json.loads(json.dumps(nest(flat)))


def values_as_long_as(saved: dict[str, Any], config: Train) -> dict[str, Any]:
    """Returns the configuration as it would be in a run of the checkpoint's length.

    Settings that are derived from `total_steps` then equal those of the checkpoint, so that
    `check_unchanged` finds only explicit changes; `change_of_schedule` describes the rest.

    Args:
        saved: Configuration of the checkpoint.
        config: Configuration as given, with fractions of the run.
    """
    return values(at_length(config, saved.get("total_steps", config.total_steps)))


def change_of_schedule(saved: dict[str, Any], config: Train, *, step: int) -> str | None:
    """Describes the learning rate of a run resumed with another length; None for the same length.

    Args:
        saved: Configuration of the checkpoint.
        config: Configuration of the resumed run.
        step: Updates done.
    """
    # `config` is unresolved: its schedule stretches with its own length.
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
            ". NOTHING MORE IS LEARNED at a rate of 0: omit the settings of the schedule's steps, "
            "or start another --workdir with --config.init_from"
        )
    return text


def check_unchanged(saved: dict[str, Any], current: dict[str, Any]) -> None:
    """Compares the configuration with the one a checkpoint was trained with.

    A checkpoint trained by another program has the key `imported`; only its known values are
    compared. Values missing from an older checkpoint had their defaults.

    Raises:
        ConfigError: A value that determines the result differs; lists all of them.
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
            "--workdir to start over (with --config.init_from to start from these parameters):\n"
            + "\n".join(lines)
        )


def _is_free(name: str) -> bool:
    return any(name == free or name.startswith(f"{free}.") for free in FREE_TO_CHANGE)


def _said(values: dict[str, Any], name: str) -> Any:
    """Returns the value of a setting, else its default, else None."""
    told = TABLES["train"].get(name)
    default = None if told is None or told.is_required or told.optional_section else told.default
    value = values.get(name, default)
    # Saved values come from JSON, which has lists; the defaults are tuples.
    return list(value) if isinstance(value, tuple) else value
