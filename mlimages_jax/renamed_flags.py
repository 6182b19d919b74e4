# SPDX-License-Identifier: BSD-3-Clause
"""Flags that were renamed: the old names are accepted for this release, with a line for each."""

import sys
from collections.abc import Sequence

# Without dashes, words parted by "-". To be emptied with the next release.
RENAMED = {
    "min-pictures": "min-images",
    "pictures": "images",
    "picture-kb": "image-kb",
}


def replaced(words: Sequence[str]) -> list[str]:
    """Command-line words with the new names of flags; says on stderr what was replaced."""
    return [_replaced(word) for word in words]


def _replaced(word: str) -> str:
    flag, equals, value = word.partition("=")
    new = RENAMED.get(flag.lstrip("-").replace("_", "-"))
    if new is None or not flag.startswith("-"):
        return word
    print(f"note: {flag} is now called --{new}; the old name goes with 0.3", file=sys.stderr)
    return f"--{new}{equals}{value}"
