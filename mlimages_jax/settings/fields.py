# SPDX-License-Identifier: BSD-3-Clause
"""Fields of the settings dataclasses: each states its rule, meaning and default in one place.

A setting has a dotted name, such as "crop.area": the names of its sections followed by its own.
Files, command lines and checkpoints contain values by these names (`Values`); `build` creates a
dataclass from them, and `flatten` is the inverse.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from mlimages_jax.settings.rules import Rule

T = TypeVar("T")
Values = dict[str, Any]
_SETTING = "setting"
_REQUIRED = object()  # not None, which may be a default


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting of a task.

    Attributes:
        rule: Which values are allowed.
        meaning: What it does, with unit and source, for --config.help.
        default: Value if none is given.
        optional_section: Name of its section with a trailing dot, if the section is optional.
    """

    rule: Rule
    meaning: str
    default: Any = _REQUIRED
    optional_section: str = ""

    @property
    def is_required(self) -> bool:
        """Whether a value must be given because there is no default."""
        return self.default is _REQUIRED


Table = Mapping[str, Setting]


def setting(rule: Rule, meaning: str, **default: Any) -> Any:
    """Returns a field of a settings dataclass.

    Args:
        rule: Which values are allowed.
        meaning: What it does, with unit and source.
        **default: `default=...`, or nothing if a value must be given.
    """
    return dataclasses.field(**default, metadata={_SETTING: Setting(rule, meaning, **default)})


def table_of_fields(kind: type) -> Table:
    """Returns the settings of a dataclass and its sections, by dotted name."""
    return MappingProxyType(dict(_settings(kind, "", "")))


def _settings(kind: type, prefix: str, optional: str) -> Iterator[tuple[str, Setting]]:
    for field in dataclasses.fields(kind):
        name = prefix + field.name
        if section := section_of(field):
            may_be_left_out = f"{name}." if field.default is None else optional
            yield from _settings(section, f"{name}.", may_be_left_out)
        else:
            told = field.metadata[_SETTING]
            yield name, dataclasses.replace(told, optional_section=optional)


def section_of(field: dataclasses.Field[Any]) -> type | None:
    """Returns the dataclass of a field that is a section, optional or not; else None."""
    # An optional section has the type `Section | None`, whose members are in __args__.
    for kind in getattr(field.type, "__args__", (field.type,)):
        if dataclasses.is_dataclass(kind):
            return kind  # type: ignore[return-value]  # a class, not an instance
    return None


def build(kind: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Creates a dataclass from validated values; missing ones get their defaults.

    Args:
        kind: The dataclass.
        values: Values by name; names of other sections are ignored.
        prefix: Common prefix of the names in `values`.
    """
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]  # T is a dataclass
        name = prefix + field.name
        if section := section_of(field):
            if field.default is None and not any(known.startswith(f"{name}.") for known in values):
                continue
            arguments[field.name] = build(section, values, f"{name}.")
        elif name in values:
            arguments[field.name] = _frozen(values[name])
    return kind(**arguments)


def _frozen(value: Any) -> Any:
    """Converts lists, as in JSON and on command lines, to tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def flatten(config: Any, prefix: str = "") -> Values:
    """Flattens settings or nested dicts to {"crop.area": ...}, keeping their order.

    Empty and omitted sections contribute nothing.

    Raises:
        TypeError: A name is not a text.
    """
    flat: Values = {}
    for name, value, is_left_out in _items(config):
        if not isinstance(name, str):
            raise TypeError(f"{prefix}{name!r} is not the name of a setting")
        if isinstance(value, Mapping) or dataclasses.is_dataclass(value):
            flat |= flatten(value, f"{prefix}{name}.")
        elif not is_left_out:
            flat[prefix + name] = value
    return flat


def _items(config: Any) -> Iterator[tuple[Any, Any, bool]]:
    """Yields names and values, and whether a value stands for an omitted section."""
    if dataclasses.is_dataclass(config):
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            yield field.name, value, value is None and section_of(field) is not None
    else:
        for name, value in config.items():
            yield name, value, False


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Converts values by dotted name to nested dicts, as stored in JSON."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *sections, last = name.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return tree
