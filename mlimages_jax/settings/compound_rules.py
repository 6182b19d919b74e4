# SPDX-License-Identifier: BSD-3-Clause
"""Rules made of other rules: for tuples of values, and for values that a task may choose."""

from dataclasses import dataclass, field
from typing import Any

from mlimages_jax.settings.rules import Number, Rule, is_number, shown


@dataclass(frozen=True)
class Pair(Rule):
    """Two numbers, the smaller one first.

    Attributes:
        each: Rule of both numbers.
        example: How to write a pair.
    """

    each: Number
    example: str

    def allows(self, value: Any) -> bool:
        return (
            isinstance(value, tuple | list)
            and len(value) == 2
            and all(map(self.each.allows, value))
            and value[0] <= value[1]
        )

    @property
    def allowed(self) -> str:
        one = self.each.allowed.removeprefix("a number, ")
        return f"two numbers, each {one}, the smaller first, written as {self.example}"


@dataclass(frozen=True)
class Several(Rule):
    """A tuple of values.

    Attributes:
        each: Rule of every value.
        example: How to write a tuple.
        minimum: Smallest allowed number of values.
        repeats: Whether a value may occur more than once.
    """

    each: Rule
    example: str
    minimum: int = 0
    repeats: bool = False

    @property
    def allowed(self) -> str:
        return f"a tuple, written as {self.example}; each value is {self.each.allowed}"

    def problem(self, value: Any) -> str | None:
        spelt = f", written as {self.example}"
        if not isinstance(value, tuple | list):
            return f": give a tuple{spelt}"
        if len(value) < self.minimum:
            return f": give {self.minimum} or more{spelt}; each must be {self.each.allowed}"
        for item in value:
            if told := self.each.problem(item):
                # The message of an item is worded for a setting: ": give ..." becomes "is not ...".
                return f" has {shown(item)}, which{told.replace(': give', ' is not')}{spelt}"
        if not self.repeats and len(set(value)) < len(value):
            return f": give each value once{spelt}"
        return None

    def allows(self, value: Any) -> bool:
        return self.problem(value) is None


@dataclass(frozen=True)
class Records(Rule):
    """A tuple of tuples that all have the same parts.

    Attributes:
        parts: Rules of the parts by name.
        example: How to write a tuple of them.
    """

    parts: dict[str, Rule] = field(hash=False)
    example: str

    def _is_record(self, value: Any) -> bool:
        return (
            isinstance(value, tuple | list)
            and len(value) == len(self.parts)
            and all(
                rule.allows(part) for rule, part in zip(self.parts.values(), value, strict=True)
            )
        )

    def allows(self, value: Any) -> bool:
        return isinstance(value, tuple | list) and all(map(self._is_record, value))

    @property
    def allowed(self) -> str:
        parts = "; ".join(f"{name} is {rule.allowed}" for name, rule in self.parts.items())
        return f"a tuple of ({', '.join(self.parts)}) tuples, written as {self.example}: {parts}"

    def resolve(self, value: Any, total_steps: int) -> Any:
        rules = list(self.parts.values())
        return tuple(
            tuple(rule.resolve(part, total_steps) for rule, part in zip(rules, record, strict=True))
            for record in value
        )


@dataclass(frozen=True)
class Open(Rule):
    """A value that the task chooses if it is left open.

    Attributes:
        rule: Rule of a value that is given.
        chosen: What the choice depends on, as in "by the number of images".
        value: The value that leaves it open.
    """

    rule: Rule
    chosen: str
    value: int | str | tuple[()] = 0

    def is_open(self, value: Any) -> bool:
        if isinstance(self.value, int):
            return is_number(value) and value == self.value  # False equals 0, but is a mistake
        if isinstance(self.value, str):
            return isinstance(value, str) and value == self.value
        return isinstance(value, tuple | list) and not value  # a list from JSON

    def problem(self, value: Any) -> str | None:
        return None if self.is_open(value) else self.rule.problem(value)

    def allows(self, value: Any) -> bool:
        return self.problem(value) is None

    @property
    def allowed(self) -> str:
        return f"{self.rule.allowed}; {self.value!r}: chosen {self.chosen}"

    def resolve(self, value: Any, total_steps: int) -> Any:
        return value if self.is_open(value) else self.rule.resolve(value, total_steps)
