# SPDX-License-Identifier: BSD-3-Clause
"""RandAugment (Cubuk et al., CVPR workshops 2020) for one uint8 image, on the host.

The paper's 14 operations, each bit-identical to Pillow's function on x86. Pillow itself does the
geometry. The others are written with OpenCV and NumPy, which release the GIL: Pillow builds its
tables in Python and holds the GIL while it blends, so the threads of the pipeline would wait for
each other. Including conversions none is slower than Pillow's, and most are two to five times
faster (224x224, one core: 0.11 ms per operation on average, 0.22 in Pillow).

Meaning of a magnitude: The paper takes the ranges of AutoAugment (Cubuk et al., CVPR 2019) and
calls 10 the strongest, but its own code weakens some operations as the magnitude rises. Here, as
in torchvision's RandAugment, all grow linearly, from no change at 0 to this at 10:

    rotate                                   30 degrees, in either direction
    shear_x, shear_y                         0.3 about the top left corner, in either direction
    translate_x, translate_y                 150 / 331 of the side, in either direction
    colour, contrast, brightness, sharpness  factor 1.9 or 0.1
    posterise                                4 of 8 bits kept, in whole bits
    solarise                                 every level inverted, from 256 down
    identity, auto_contrast, equalise        no magnitude

One difference: torchvision solarises from 255 down, so that its magnitude 0 turns white black.
"""

from typing import Literal, get_args

import cv2
import numpy as np
from PIL import Image

Operation = Literal[
    "identity", "auto_contrast", "equalise", "rotate", "solarise", "colour", "posterise",
    "contrast", "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y",
]  # fmt: skip
OPERATIONS: tuple[Operation, ...] = get_args(Operation)

MAX_MAGNITUDE = 10.0
ROTATION = 30.0  # degrees
SHEAR = 0.3
TRANSLATION = 150 / 331  # of the side
ENHANCEMENT = 0.9  # the factor's distance from 1
POSTERISED_BITS = 4  # lost

# Fills areas from outside the image: the grey of the paper's code. It is the middle of the levels,
# 0 for the network, and does not affect a later auto-contrast.
FILL = (128, 128, 128)

_LEVELS = np.arange(256)
_SMOOTHING = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13  # Pillow's SMOOTH


def rand_augment(
    image: np.ndarray, rng: np.random.Generator, *, num_ops: int, magnitude: float
) -> np.ndarray:
    """Applies operations drawn uniformly with replacement, one after another.

    Args:
        image: uint8 [H, W, 3]; never modified.
        rng: Source of randomness; each operation draws its kind and a direction, even if it has
            none.
        num_ops: Number of operations; 0 changes nothing.
        magnitude: Magnitude of all operations, from 0 to 10; see the module's docstring.

    Returns:
        uint8 [H, W, 3], read-only: it may be the given image.

    Raises:
        ValueError: If `num_ops` or `magnitude` is out of range.
    """
    if num_ops < 0 or num_ops % 1:
        raise ValueError(f"num_ops={num_ops} must be a whole number, 0 or more")
    if not 0 <= magnitude <= MAX_MAGNITUDE:
        raise ValueError(f"magnitude={magnitude} must lie between 0 and {MAX_MAGNITUDE:g}")
    for _ in range(num_ops):
        # Both are drawn for every operation, so that one choice does not shift later draws.
        operation = OPERATIONS[rng.integers(len(OPERATIONS))]
        direction = 1 if rng.random() < 0.5 else -1
        image = apply(operation, image, strength=direction * magnitude / MAX_MAGNITUDE)
    return image


def apply(operation: Operation, image: np.ndarray, *, strength: float) -> np.ndarray:
    """Applies one operation.

    Args:
        operation: One of the 14 operations.
        image: uint8 [H, W, 3].
        strength: From -1 to 1, where 1 is the end of the operation's range; operations without a
            direction use the absolute value.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: If the operation is unknown.
    """
    height, width = image.shape[:2]
    factor = 1 + ENHANCEMENT * strength
    match operation:
        case "identity":
            return image
        case "auto_contrast":
            return _auto_contrast(image)
        case "equalise":
            return _equalise(image)
        case "rotate":
            turned = Image.fromarray(image).rotate(ROTATION * strength, fillcolor=FILL)
            return np.asarray(turned)
        case "solarise":
            return _solarise(image, threshold=256 * (1 - abs(strength)))
        case "colour":
            return _blend(cv2.merge([_grey(image)] * 3), image, factor=factor)
        case "posterise":
            return image & np.uint8(256 - 2 ** round(POSTERISED_BITS * abs(strength)))
        case "contrast":
            return _contrast(image, factor=factor)
        case "brightness":
            return cv2.LUT(image, _blended(0, _LEVELS, factor=factor))
        case "sharpness":
            return _blend(_smooth(image), image, factor=factor)
        case "shear_x":
            return _transform(image, (1, SHEAR * strength, 0, 0, 1, 0))
        case "shear_y":
            return _transform(image, (1, 0, 0, SHEAR * strength, 1, 0))
        case "translate_x":
            return _transform(image, (1, 0, TRANSLATION * strength * width, 0, 1, 0))
        case "translate_y":
            return _transform(image, (1, 0, 0, 0, 1, TRANSLATION * strength * height))
    raise ValueError(f"operation={operation!r} is none of {', '.join(OPERATIONS)}")


def _transform(image: np.ndarray, matrix: tuple[float, ...]) -> np.ndarray:
    """Samples pixel (x, y) nearest to (a x + b y + c, d x + e y + f), with (a, ..., f) = matrix."""
    size = (image.shape[1], image.shape[0])
    affine = Image.Transform.AFFINE
    return np.asarray(Image.fromarray(image).transform(size, affine, matrix, fillcolor=FILL))


def _auto_contrast(image: np.ndarray) -> np.ndarray:
    """Stretches each channel to 0 ... 255, like `ImageOps.autocontrast`."""
    tables = []
    for channel in cv2.split(image):
        low, high, *_ = cv2.minMaxLoc(channel)
        scale = 255 / (high - low) if high > low else 1.0
        offset = -low * scale if high > low else 0.0
        tables.append(_as_levels(_LEVELS * scale + offset))
    return cv2.LUT(image, np.stack(tables, axis=-1)[:, None])


def _equalise(image: np.ndarray) -> np.ndarray:
    """Flattens each channel's histogram, like `ImageOps.equalize`.

    A level maps to the number of pixels below it, in steps of 1/255 of all but the brightest ones.
    """
    tables = []
    for channel in range(3):
        counts = cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel().astype(np.int64)
        step = (image[..., 0].size - counts[counts.nonzero()[0][-1]]) // 255
        below = counts.cumsum() - counts
        tables.append(_as_levels((below + step // 2) // step if step else _LEVELS))
    return cv2.LUT(image, np.stack(tables, axis=-1)[:, None])


def _solarise(image: np.ndarray, *, threshold: float) -> np.ndarray:
    """Inverts the levels from the threshold on, like `ImageOps.solarize`."""
    return cv2.LUT(image, _as_levels(np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS)))


def _contrast(image: np.ndarray, *, factor: float) -> np.ndarray:
    """Scales the distance to the mean grey, rounded to a level, like `ImageEnhance.Contrast`."""
    grey = _grey(image)
    mean = int(cv2.sumElems(grey)[0] / grey.size + 0.5)
    return cv2.LUT(image, _blended(mean, _LEVELS, factor=factor))


def _smooth(image: np.ndarray) -> np.ndarray:
    """Applies Pillow's SMOOTH filter, a weighted mean of 3x3 pixels; the border is unchanged."""
    smooth = cv2.filter2D(image, -1, _SMOOTHING)
    smooth[[0, -1]] = image[[0, -1]]
    smooth[:, [0, -1]] = image[:, [0, -1]]
    return smooth


def _grey(image: np.ndarray) -> np.ndarray:
    """Returns luma, uint8 [H, W]; OpenCV's differs by one level in one of some thousand pixels."""
    return np.asarray(Image.fromarray(image).convert("L"))


def _blend(base: np.ndarray, image: np.ndarray, *, factor: float) -> np.ndarray:
    """Returns base + factor (image - base), uint8 [H, W, 3], like `Image.blend`."""
    blended: np.ndarray = cv2.subtract(image, base, dtype=cv2.CV_32F)
    blended *= np.float32(factor)
    blended += base
    return _as_levels(blended)


def _blended(base: int, levels: np.ndarray, *, factor: float) -> np.ndarray:
    """Does the same for a table of levels and a base of one level."""
    return _as_levels(np.float32(base) + np.float32(factor) * (levels - base).astype(np.float32))


def _as_levels(values: np.ndarray) -> np.ndarray:
    """Clips and truncates to uint8 levels, as Pillow does everywhere."""
    return np.clip(values, 0, 255).astype(np.uint8)
