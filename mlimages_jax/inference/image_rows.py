# SPDX-License-Identifier: BSD-3-Clause
"""Results per image in input order, with an error for each image that could not be read."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mlimages_jax.inference.tagging import Tag


class Tags(list[Tag]):
    """Tags of one image, best first.

    Attributes:
        error: Why there are no tags; "" if the image was read.
    """

    def __init__(self, tags: Iterable[Tag] = (), *, error: str = ""):
        super().__init__(tags)
        self.error = error


class OutputRows(np.ndarray):
    """An array with one row per image, which is nan if the image could not be read.

    Attributes:
        errors: Error messages by position; empty in arrays derived from this one.
    """

    errors: Mapping[int, str]

    @classmethod
    def of(cls, rows: np.ndarray, errors: Mapping[int, str]) -> "OutputRows":
        """Returns a view of `rows` with the given errors."""
        result = rows.view(cls)
        result.errors = dict(errors)
        return result

    def __array_finalize__(self, source: Any) -> None:
        # Positions are valid for the full array only, so slices and sums carry no errors.
        self.errors = {}
