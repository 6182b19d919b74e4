# SPDX-License-Identifier: BSD-3-Clause
"""Formats --config.help: every setting of a task with its meaning, allowed and current value."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from mlimages_jax.settings.fields import Setting, section_of
from mlimages_jax.settings.judge import table_of
from mlimages_jax.settings.tasks import TASKS
from mlimages_jax.settings.training import Train

_WIDTH = 100


def help_text(values: Mapping[str, Any] | None = None, *, title: str = "") -> str:
    """Formats the settings of a task, grouped by section.

    Args:
        values: Values of a config file by name; None shows the defaults of a training.
        title: Name of the config file.
    """
    set_values = {"task": "train"} | dict(values or {})
    kind = TASKS[set_values["task"]]
    table = table_of(set_values)
    lines = [f"Settings of {title or 'a training'}: change a value with --config.NAME=VALUE."]
    if issubclass(kind, Train):
        lines += [
            "Steps may be given as a fraction of total_steps: 0.1 is a tenth of the run.",
            "--config.model=resnet50 sets all sizes of the network.",
        ]
    group = None
    for name in sorted(table, key=lambda name: "." in name):  # those without a section first
        section = name.rpartition(".")[0]
        if section != group:
            group = section
            lines += ["", f"{section}: {_summary(kind, section)}" if section else _first_line(kind)]
        lines += _lines(name, table[name], set_values)
    return "\n".join(lines)


def _lines(name: str, told: Setting, set_values: Mapping[str, Any]) -> Iterator[str]:
    yield f"  --config.{name}={_value(name, told, set_values)}"
    allowed = told.rule.allowed
    text = f"{told.meaning} {allowed[:1].upper()}{allowed[1:]}."
    yield from textwrap.wrap(
        text, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False
    )


def _value(name: str, told: Setting, set_values: Mapping[str, Any]) -> str:
    """Formats the value in the file, with the default if it differs."""
    default = "no default" if told.is_required else f"default {told.default!r}"
    if name not in set_values:
        return f"...  ({default})" if told.is_required else f"{told.default!r}  (default)"
    same = not told.is_required and set_values[name] == told.default
    return f"{set_values[name]!r}  ({'default' if same else default})"


def _summary(kind: type, section: str) -> str:
    """Returns the first line of the docstring of a section's dataclass."""
    for part in section.split("."):
        found = section_of(kind.__dataclass_fields__[part])  # type: ignore[attr-defined]  # a dataclass
        assert found is not None
        kind = found
    return _first_line(kind)


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").partition("\n")[0]
