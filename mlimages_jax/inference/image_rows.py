# SPDX-License-Identifier: BSD-3-Clause
"""Results of images in input order, where one that could not be read has its error instead."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mlimages_jax.inference.tagging import Tag


class Tags(list[Tag]):
    """Tags of one image, best first.

    Attributes:
        error: why there are none; "" where the image was read.
    """

    def __init__(self, tags: Iterable[Tag] = (), *, error: str = ""):
        super().__init__(tags)
        self.error = error


class OutputRows(np.ndarray):
    """An array with a row an image, nan where it could not be read.

    Attributes:
        errors: what is wrong with these images, by position; empty for what is computed from rows.
    """

    errors: Mapping[int, str]

    @classmethod
    def of(cls, rows: np.ndarray, errors: Mapping[int, str]) -> "OutputRows":
        """The same numbers, with errors beside them."""
        result = rows.view(cls)
        result.errors = dict(errors)
        return result

    def __array_finalize__(self, source: Any) -> None:
        # Positions hold for the whole array only: slices and sums begin without errors.
        self.errors = {}
