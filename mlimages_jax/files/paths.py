# SPDX-License-Identifier: BSD-3-Clause
"""Paths as people type them, made plain once, at the border.

A shell leaves the ~ of `--workdir=~/run` alone. Taken literally it is a folder named "~", which one
library makes and the next one expands: the run is split over two places.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mlimages_jax.files.remote import is_remote


class PathError(ValueError):
    """A path that stands for none on this machine."""


def expanded(path: str | os.PathLike[str]) -> str:
    """A path without ~, without a trailing slash and without `.` or double slashes; "" stays.

    Raises:
        PathError: for a home folder that is not known.
    """
    text = os.fspath(path)
    if not text:
        return text
    if is_remote(text):
        scheme, _, rest = text.partition("://")
        return f"{scheme}://{rest.rstrip('/')}"
    full = os.path.expanduser(text)  # noqa: PTH111  # pathlib turns "" into "."
    if full.startswith("~"):
        raise PathError(
            f"{text}: the home folder of {full.partition('/')[0]} is not known here (HOME is not "
            "set); give the whole path"
        )
    return os.path.normpath(full)


def absolute(path: str | os.PathLike[str]) -> str:
    """As `expanded`, from the root on; a URL stays one.

    Raises:
        PathError: as `expanded`.
    """
    plain = expanded(path)
    return plain if is_remote(plain) else os.path.abspath(plain)  # noqa: PTH100  # links stay


def workdir(path: str) -> str:
    """The folder of a run as it was typed, from the root on; it may not exist yet.

    Raises:
        PathError: for none, as an unset variable of a shell leaves it, which would be the current
            folder; with a bracket in it; where something else than a folder is in its way; as
            `expanded`.
    """
    if not path.strip():
        raise PathError("--workdir is empty: give the folder of the run (is a variable not set?)")
    plain = absolute(path)
    if "[" in plain or "]" in plain:
        # Orbax 0.12.8 saves there without a word and cannot read what it saved.
        raise PathError(
            f"--workdir={path}: {plain} holds a bracket, and checkpoints in such a folder cannot "
            "be read back; give a --workdir without [ and ]"
        )
    if not is_remote(plain):
        folder = Path(plain)
        there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
        for place in (there, folder / "checkpoints"):
            if os.path.lexists(place) and not place.is_dir():
                raise PathError(f"--workdir={path}: {place} is no folder; give another --workdir")
    return plain


def expand_home(config: ConfigDict) -> None:
    """Replaces the ~ in every text of a configuration that begins with one.

    Raises:
        PathError: as `expanded`.
    """
    with config.unlocked():
        for name, value in config.items():
            if isinstance(value, ConfigDict):
                expand_home(value)
            elif isinstance(value, str) and value.startswith("~"):
                config[name] = expanded(value)


def plain_words(words: Sequence[str]) -> list[str]:
    """Command-line words with ~ replaced behind the = of `--name=~/...` too.

    Raises:
        PathError: as `expanded`.
    """
    return [_plain_word(word) for word in words]


def _plain_word(word: str) -> str:
    name, equals, value = word.partition("=")
    if word.startswith("--") and equals and value.startswith("~"):
        return f"{name}={expanded(value)}"
    return expanded(word) if word.startswith("~") else word


def same_place(one: Any, other: Any) -> bool:
    """Whether two values of a configuration name one place, however they are typed."""
    if isinstance(one, str) and isinstance(other, str) and one and other:
        return absolute(one) == absolute(other)
    return one == other
