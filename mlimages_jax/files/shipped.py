# SPDX-License-Identifier: BSD-3-Clause
"""Folders of the repository that the installed package includes: configs/ and launch/."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def folder(name: str, *, holding: str) -> Path:
    """Returns the path of a folder: inside the installed package, or next to it in a clone.

    Args:
        name: Name of the folder.
        holding: File in it, to tell it from a folder of the same name in site-packages.

    Raises:
        FileNotFoundError: The folder is in neither place.
    """
    for place in (_PACKAGE / name, _PACKAGE.parent / name):
        if (place / holding).is_file():
            return place
    raise FileNotFoundError(
        f"{name}/{holding} is neither in {_PACKAGE} nor next to it: reinstall the package"
    )
