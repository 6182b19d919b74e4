# SPDX-License-Identifier: BSD-3-Clause
"""Fields of the dataclasses of settings: each states its rule, its meaning and its default once.

A setting has a name with dots, such as "crop.area": the names of its sections and its own. Values
by these names (`Values`) are what files, command lines and checkpoints say; `build` makes a
dataclass of them and `flatten` takes one apart.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from mlimages_jax.settings.rules import Rule

T = TypeVar("T")
Values = dict[str, Any]
_SETTING = "setting"
_REQUIRED = object()


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting of a task.

    Attributes:
        rule: The values that it may have.
        meaning: What it does, with unit and source, for --config.help.
        default: The value if none is given.
        optional_section: Its section with a dot at the end, if that may be left out as a whole.
    """

    rule: Rule
    meaning: str
    default: Any = _REQUIRED
    optional_section: str = ""

    @property
    def is_required(self) -> bool:
        """Whether it has to be given, for want of a default."""
        return self.default is _REQUIRED


Table = Mapping[str, Setting]


def setting(rule: Rule, meaning: str, **default: Any) -> Any:
    """A field of a dataclass of settings.

    Args:
        rule: The values that it may have.
        meaning: What it does, with unit and source.
        **default: `default=...`, unless a value must be given.
    """
    return dataclasses.field(**default, metadata={_SETTING: Setting(rule, meaning, **default)})


def table_of_fields(kind: type) -> Table:
    """The settings of a dataclass and of its sections, by their names with dots."""
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
    """The dataclass that a field holds, or `None` with; None for a single setting."""
    for kind in getattr(field.type, "__args__", (field.type,)):
        if dataclasses.is_dataclass(kind):
            return kind  # type: ignore[return-value]  # it is a class and no instance
    return None


def build(kind: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """A dataclass of values that were judged; what they do not say has its default.

    Args:
        kind: The dataclass.
        values: Values by name; those of other sections are ignored.
        prefix: What the names in `values` begin with.
    """
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        name = prefix + field.name
        if section := section_of(field):
            if field.default is None and not any(known.startswith(f"{name}.") for known in values):
                continue
            arguments[field.name] = build(section, values, f"{name}.")
        elif name in values:
            arguments[field.name] = _frozen(values[name])
    return kind(**arguments)


def _frozen(value: Any) -> Any:
    """Tuples for lists, which JSON and command lines may give."""
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def flatten(config: Any, prefix: str = "") -> Values:
    """{"crop.area": ...} of settings, or of nested dicts, in their order.

    Sections that are empty, or left out, leave nothing.
    """
    flat: Values = {}
    for name, value, is_left_out in _items(config):
        if not isinstance(name, str):
            raise TypeError(f"{prefix}{name!r} is no name of a setting")
        if isinstance(value, Mapping) or dataclasses.is_dataclass(value):
            flat |= flatten(value, f"{prefix}{name}.")
        elif not is_left_out:
            flat[prefix + name] = value
    return flat


def _items(config: Any) -> Iterator[tuple[Any, Any, bool]]:
    """Name, value, and whether the value stands for a section that is left out."""
    if dataclasses.is_dataclass(config):
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            yield field.name, value, value is None and section_of(field) is not None
    else:
        for name, value in config.items():
            yield name, value, False


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values as dicts within dicts, as they are stored in JSON."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *sections, last = name.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return tree
