# SPDX-License-Identifier: BSD-3-Clause
"""Small images to look at, of positions spaced evenly over a data set. NumPy only."""

import numpy as np

from mlimages_jax.data.images.jpeg_encoder import encode
from mlimages_jax.data.images.views import EvaluationView

SIZE = 128  # pixels
_QUALITY = 85


def spaced(records: int, count: int) -> list[int]:
    """Returns at most `count` different positions, spaced evenly over the records.

    Evenly, because neighbouring records often come from one folder or class.
    """
    return sorted(set(np.linspace(0, records - 1, count).round().astype(int).tolist()))


def thumbnail(jpeg: bytes) -> np.ndarray:
    """Returns an image squeezed to a square, uint8 [SIZE, SIZE, 3], RGB.

    Raises:
        BadImage: It cannot be decoded.
    """
    return EvaluationView(SIZE, "whole")(jpeg)


def as_jpeg(pixels: np.ndarray) -> bytes:
    """Encodes uint8 [H, W, 3], RGB, in some kilobytes."""
    return b"".join(encode(pixels, quality=_QUALITY, chroma="420"))
