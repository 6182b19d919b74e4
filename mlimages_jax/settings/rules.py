# SPDX-License-Identifier: BSD-3-Clause
"""Rules for single values: each validates a value, describes what is allowed, and resolves it.

A rule covers the type and the range of a setting: neither True nor "3" is a number. Rules for
tuples and for values that may be left open are in `compound_rules`.
"""

import difflib
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlimages_jax.files.remote import is_remote

_MOST_STEPS = 2**31 - 1  # devices count in 32 bits; the limit of all other integers too
LARGEST = float.fromhex("0x1.fffffep127")  # largest float32; larger values are infinite on devices
_SHOWN = 200  # characters of a value in a message
_SLACK = 1e-6  # of a step: 110_000 / 257_955 * 257_955 may end a little above 110,000


def is_whole(value: Any) -> bool:
    """Returns whether a value is an integer and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Returns whether a value is a number, finite even in float32, and not a bool."""
    # The comparison is False for NaN, and cannot overflow as float() of a large integer can.
    return (is_whole(value) or isinstance(value, float)) and -LARGEST <= value <= LARGEST


def shown(value: Any) -> str:
    """Formats a value for a message, on one line of limited length."""
    text = repr(tuple(value) if isinstance(value, list) else value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"


def _too_large(value: Any) -> str | None:
    """Returns the problem of a count that exceeds 32 bits, or None."""
    return f": give at most {_MOST_STEPS}" if is_whole(value) and value > _MOST_STEPS else None


def nearest(name: Any, names: Iterable[str]) -> str:
    """Returns "; did you mean 'x'?" for the most similar name, or "" if none is similar."""
    # difflib takes quadratic time, so names are truncated.
    found = difflib.get_close_matches(str(name)[:_SHOWN], list(names), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""


@dataclass(frozen=True)
class Rule:
    """Allows everything."""

    def allows(self, value: Any) -> bool:
        """Returns whether a value is allowed."""
        return True

    @property
    def allowed(self) -> str:
        """The allowed values, as a phrase that follows "give"."""
        return "a value"

    def problem(self, value: Any) -> str | None:
        """Returns the text that follows "name=value" in the error, or None for an allowed value."""
        return None if self.allows(value) else f": give {self.allowed}"

    def resolve(self, value: Any, total_steps: int) -> Any:
        """Returns the value that the program uses in a run of `total_steps` steps."""
        return value

    def is_open(self, value: Any) -> bool:
        """Returns whether the task chooses instead of using the value."""
        return False


@dataclass(frozen=True)
class Flag(Rule):
    """True or False.

    Attributes:
        none: What None means; "" if it is not allowed.
    """

    none: str = ""

    def allows(self, value: Any) -> bool:
        return isinstance(value, bool) or (value is None and bool(self.none))

    @property
    def allowed(self) -> str:
        return f"True, False or None ({self.none})" if self.none else "True or False"


@dataclass(frozen=True)
class Text(Rule):
    """A string."""

    may_be_empty: bool = True

    def allows(self, value: Any) -> bool:
        return isinstance(value, str) and (self.may_be_empty or bool(value))

    @property
    def allowed(self) -> str:
        return "a text" if self.may_be_empty else "a text that is not empty"


@dataclass(frozen=True)
class PathText(Text):
    """A path or URL; `missing` checks whether it exists.

    Attributes:
        must_exist: Whether it is read rather than written.
        advice: What to do if it does not exist.
        stands_for_none: A word that is no path; "" if there is none.
    """

    must_exist: bool = True
    advice: str = ""
    stands_for_none: str = ""

    @property
    def allowed(self) -> str:
        others = [self.stands_for_none] * bool(self.stands_for_none) + ["''"] * self.may_be_empty
        return " or ".join(["a path", *others])

    def missing(self, value: str) -> str | None:
        """Returns the problem of a local path that does not exist; URLs are not checked."""
        if not self.must_exist or value in ("", self.stands_for_none) or is_remote(value):
            return None
        if os.path.lexists(Path(value).expanduser()):
            return None
        return f": this path does not exist{self.advice and ': '}{self.advice}"


@dataclass(frozen=True)
class Choice(Rule):
    """One of some names."""

    names: Sequence[str]

    def allows(self, value: Any) -> bool:
        return isinstance(value, str) and value in self.names

    @property
    def allowed(self) -> str:
        return "one of " + ", ".join(name or "''" for name in self.names)

    def problem(self, value: Any) -> str | None:
        if self.allows(value):
            return None
        names = [name or "''" for name in self.names]
        return f" is none of {', '.join(names)}{nearest(value, self.names)}"


@dataclass(frozen=True)
class Whole(Rule):
    """A whole number.

    Attributes:
        minimum: Smallest allowed value.
        maximum: Largest allowed value.
        zero: What 0 means, if it is not a quantity.
    """

    minimum: int = 0
    maximum: int = _MOST_STEPS
    zero: str = ""

    def allows(self, value: Any) -> bool:
        return is_whole(value) and self.minimum <= value <= self.maximum

    @property
    def allowed(self) -> str:
        least = f"{self.minimum}{self.zero and f' ({self.zero})'}"
        most = "or more" if self.maximum == _MOST_STEPS else f"to {self.maximum}"
        return f"a whole number, {least} {most}"

    def problem(self, value: Any) -> str | None:
        return _too_large(value) or super().problem(value)


@dataclass(frozen=True)
class Number(Rule):
    """A finite number.

    Attributes:
        minimum: Lower bound, allowed itself unless `above` is set.
        maximum: Upper bound, allowed itself unless `below` is set.
        above: Whether the number must be greater than the minimum.
        below: Whether the number must be less than the maximum.
    """

    minimum: float = 0.0
    maximum: float | None = None
    above: bool = False
    below: bool = False

    def allows(self, value: Any) -> bool:
        if not is_number(value):
            return False
        enough = value > self.minimum if self.above else value >= self.minimum
        if self.maximum is None:
            return enough
        return enough and (value < self.maximum if self.below else value <= self.maximum)

    @property
    def allowed(self) -> str:
        least = f"above {self.minimum:g}" if self.above else f"{self.minimum:g} or more"
        if self.maximum is None:
            return f"a number, {least}"
        return f"a number, {least} and {'below' if self.below else 'at most'} {self.maximum:g}"


BELOW_ONE = Number(0.0, 1.0, below=True)  # a decay, or a fraction that must not be all


@dataclass(frozen=True)
class Steps(Rule):
    """A number of steps, or a fraction of total_steps strictly between 0 and 1.

    Attributes:
        zero: What 0 means; "" if it is not allowed.
        zero_is_all: Whether 0 resolves to total_steps.
        round_down: Whether to round fractions of a step down, possibly to 0, rather than up.
    """

    zero: str = ""
    zero_is_all: bool = False
    round_down: bool = False

    def allows(self, value: Any) -> bool:
        if not is_number(value) or not 0 <= value <= _MOST_STEPS:
            return False
        if value == 0:
            return bool(self.zero)
        return value < 1 or value == int(value)

    def problem(self, value: Any) -> str | None:
        return _too_large(value) or super().problem(value)

    @property
    def allowed(self) -> str:
        least = f"0 ({self.zero})" if self.zero else "1"
        return (
            f"a whole number of steps, {least} or more, or a fraction of total_steps between 0 and "
            "1, such as 0.1"
        )

    def resolve(self, value: float, total_steps: int) -> int:
        if not value and self.zero_is_all:
            return max(1, total_steps)
        if 0 < value < 1:
            steps = value * total_steps
            # Up, so that an interval is never 0. A warm-up is rounded down, possibly to none.
            return int(steps + _SLACK) if self.round_down else max(1, math.ceil(steps - _SLACK))
        return int(value)
