# SPDX-License-Identifier: BSD-3-Clause
"""Formats counts for messages."""


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun: "1 image", "1,234 images", "2 classes", "3 categories"."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith(("s", "x", "ch")):
        return f"{number:,} {noun}es"
    if noun.endswith("y"):
        return f"{number:,} {noun[:-1]}ies"
    return f"{number:,} {noun}s"
