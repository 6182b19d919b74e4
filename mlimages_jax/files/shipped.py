# SPDX-License-Identifier: BSD-3-Clause
"""Folders of the repository that an installed package carries inside: configs/ and launch/."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def folder(name: str, *, holding: str) -> Path:
    """Where a folder is: inside the installed package, or beside it in a clone.

    Args:
        name: of the folder.
        holding: a file in it, so that a folder of another package's is not taken for it.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    for place in (_PACKAGE / name, _PACKAGE.parent / name):
        if (place / holding).is_file():
            return place
    raise FileNotFoundError(
        f"{name}/{holding} is neither in {_PACKAGE} nor beside it: install the package again"
    )
