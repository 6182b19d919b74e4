# SPDX-License-Identifier: BSD-3-Clause
"""Normalises paths typed by users, once, where they enter the program.

Shells do not expand the ~ in `--workdir=~/run`. One library would create a folder named "~" and
another would expand it, so the run would be split over two places.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlimages_jax.files.remote import is_remote


class PathError(ValueError):
    """A path that cannot be used on this machine."""


def expanded(path: str | os.PathLike[str]) -> str:
    """Expands ~ and removes a trailing slash, `.` and double slashes; "" is returned unchanged.

    Raises:
        PathError: The home folder is unknown.
    """
    text = os.fspath(path)
    if not text:
        return text
    if is_remote(text):
        scheme, _, rest = text.partition("://")
        return f"{scheme}://{rest.rstrip('/')}"
    full = os.path.expanduser(text)  # noqa: PTH111  # pathlib turns "" into "."
    # expanduser leaves the text unchanged if it does not know the home folder.
    if full.startswith("~"):
        raise PathError(
            f"{text}: the home folder of {full.partition('/')[0]} is not known here (HOME is not "
            "set); give the full path"
        )
    return os.path.normpath(full)


def absolute(path: str | os.PathLike[str]) -> str:
    """Returns an absolute path, else as `expanded`; URLs stay URLs.

    Raises:
        PathError: The home folder is unknown.
    """
    plain = expanded(path)
    return plain if is_remote(plain) else os.path.abspath(plain)  # noqa: PTH100  # keeps links


def workdir(path: str) -> str:
    """Returns the absolute path of the --workdir flag; the folder need not exist.

    Raises:
        PathError: The flag is empty (the result of an unset shell variable, which would mean the
            current folder), the path contains a bracket, something other than a folder is in its
            way, or its home folder is unknown.
    """
    if not path.strip():
        raise PathError("--workdir is empty: give the folder of the run (is a variable not set?)")
    plain = absolute(path)
    if "[" in plain or "]" in plain:
        # Orbax 0.12.8 silently saves there but cannot read its checkpoints back.
        raise PathError(
            f"--workdir={path}: {plain} contains a bracket, and checkpoints in such a folder "
            "cannot be read back; give a --workdir without [ and ]"
        )
    if not is_remote(plain):
        folder = Path(plain)
        # Whatever exists nearest to the folder must be a folder, or nothing can be created in it.
        there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
        for place in (there, folder / "checkpoints"):
            if os.path.lexists(place) and not place.is_dir():
                raise PathError(
                    f"--workdir={path}: {place} is not a folder; give another --workdir"
                )
    return plain


def plain_words(words: Sequence[str]) -> list[str]:
    """Returns command-line arguments with ~ expanded, also after the = of `--name=~/...`.

    Raises:
        PathError: A home folder is unknown.
    """
    return [_plain_word(word) for word in words]


def _plain_word(word: str) -> str:
    name, equals, value = word.partition("=")
    if word.startswith("--") and equals and value.startswith("~"):
        return f"{name}={expanded(value)}"
    return expanded(word) if word.startswith("~") else word


def same_place(one: Any, other: Any) -> bool:
    """Returns whether two values of a configuration are the same path, however they are typed."""
    if isinstance(one, str) and isinstance(other, str) and one and other:
        return absolute(one) == absolute(other)
    return one == other
