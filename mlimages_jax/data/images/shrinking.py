# SPDX-License-Identifier: BSD-3-Clause
"""Shrinks decoded images to the size that a data set stores."""

import math
import threading

import cv2
import numpy as np

_MAX_PIXELS_AS_FLOAT = 2**22  # 50 MB as float32, per thread
_buffers = threading.local()


def shrunken_size(height: int, width: int, *, short_side: int | None) -> tuple[int, int]:
    """Returns height and width with the shorter side at most `short_side`; None keeps them."""
    shorter = min(height, width)
    if short_side is None or shorter <= short_side:
        return height, width
    return round(height * short_side / shorter), round(width * short_side / shorter)


def shrink(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Shrinks uint8 [H, W, 3] to [height, width, 3] by averaging."""
    if pixels.shape[0] * pixels.shape[1] > _MAX_PIXELS_AS_FLOAT:
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    # OpenCV averages floats in two thirds of the time, with the same bytes, except for halves when
    # shrinking by a whole number: this rounds them to even, the other upwards.
    floats = _floats("before", pixels.shape)
    np.copyto(floats, pixels)
    average = _floats("after", (height, width, 3))
    cv2.resize(floats, (width, height), dst=average, interpolation=cv2.INTER_AREA)
    return cv2.convertScaleAbs(average)


def _floats(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a float32 array in memory of this thread, reused because new pages are slow."""
    size = math.prod(shape)
    buffer = getattr(_buffers, name, None)
    if buffer is None or buffer.size < size:
        buffer = np.empty(size, np.float32)
        setattr(_buffers, name, buffer)
    return buffer[:size].reshape(shape)
