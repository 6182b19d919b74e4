# SPDX-License-Identifier: BSD-3-Clause
"""Crops, resizes and evaluation views of one image, on the host.

Uses NumPy and OpenCV only. Images are RGB arrays [H, W, 3], and callers pass the random generator.
Colour and rotation are done on the device, in `step.augment`.
"""

import math
from typing import Literal, NamedTuple

import cv2
import numpy as np

Interpolation = Literal["linear", "area", "reference"]

# Scaled to a short side of 256, a 1 x 65,500 image would take 13 GB. Photographs stay below 20.
MAX_ELONGATION = 500


class CropBox(NamedTuple):
    """A rectangle of whole pixels inside an image."""

    top: int
    left: int
    height: int
    width: int


def sample_crop(
    rng: np.random.Generator,
    height: int,
    width: int,
    *,
    area: tuple[float, float] = (0.7, 1.0),
    aspect: tuple[float, float] = (0.75, 1.33),
    attempts: int = 100,
) -> CropBox:
    """Draws a crop like `tf.image.sample_distorted_bounding_box` without boxes.

    Each attempt draws the aspect ratio, then a height uniformly between what the area range and the
    image allow, so the area is *not* uniform: small crops are more likely. Attempts whose rectangle
    does not fit are discarded, which favours the image's own aspect ratio.

    Args:
        rng: Source of randomness.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        area: Range of the crop's fraction of the image's area; pretraining uses (0.7, 1),
            finetuning (0.05, 1).
        aspect: Range of width / height.
        attempts: After this many failures the crop is the full image.

    Returns:
        The crop. As in the original it never touches the last row or column unless it spans that
        side.

    Raises:
        ValueError: If the image is empty or a range is not increasing and positive.
    """
    if height < 1 or width < 1:
        raise ValueError(f"cannot crop an empty image of {height}x{width} pixels")
    if not (0 < area[0] <= area[1] <= 1 and 0 < aspect[0] <= aspect[1]):
        raise ValueError(f"area={area} must rise within (0, 1], aspect={aspect} above 0")
    for _ in range(attempts):
        ratio = aspect[0] + (aspect[1] - aspect[0]) * rng.random()
        size = _sample_size(rng, height, width, area=area, ratio=ratio)
        if size is not None:
            top = int(rng.random() * (height - size[0]))
            left = int(rng.random() * (width - size[1]))
            return CropBox(top, left, *size)
    return CropBox(0, 0, height, width)


def _sample_size(
    rng: np.random.Generator, height: int, width: int, *, area: tuple[float, float], ratio: float
) -> tuple[int, int] | None:
    """Returns height and width of a crop with width / height = ratio, or None if none fits."""
    min_area, max_area = area[0] * height * width, area[1] * height * width
    # The rounding follows TensorFlow's sample_distorted_bounding_box, whose lrint, like Python's
    # round, sends halves to the even number.
    low = round(math.sqrt(min_area / ratio))
    # At most the image's height, and a width that rounds to at most the image's.
    high = min(round(math.sqrt(max_area / ratio)), height, int((width + 0.4999999) / ratio))
    low = min(low, high)
    crop_height = low + int(rng.random() * (high - low + 1))
    # Rounding to whole pixels may have left the area range by little: one step back inside.
    if crop_height * round(crop_height * ratio) < min_area:
        crop_height += 1
    if crop_height * round(crop_height * ratio) > max_area:
        crop_height -= 1
    crop_width = round(crop_height * ratio)
    fits = 0 < crop_height <= height and 0 < crop_width <= width
    if fits and min_area <= crop_height * crop_width <= max_area:
        return crop_height, crop_width
    return None


def resize_bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes like TensorFlow 1's `resize_bilinear` with align_corners=False.

    Output row i samples source row i * H / height: no half-pixel centres, no antialiasing; the last
    row is repeated beyond the border. The published weights were trained with this.

    Args:
        image: uint8 or float32 [H, W, 3].
        height: Height of the result.
        width: Width of the result.

    Returns:
        float32 [height, width, 3], in the units of the input.
    """
    upper, lower, down = _neighbours(image.shape[0], height)
    left, right, across = _neighbours(image.shape[1], width)
    # Gathering entire rows is several times faster than gathering pixels, so the image is
    # transposed to gather columns; both row neighbours of each output row are processed together.
    columns = cv2.transpose(image[np.concatenate([upper, lower])])  # [W, 2 * height, 3]
    rows = cv2.transpose(_blend(columns[left], columns[right], across))  # [2 * height, width, 3]
    return _blend(rows[:height], rows[height:], down)


def _neighbours(size: int, new_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns indices of both neighbours and the weight of the second, per output position."""
    # In float32, as TensorFlow computes it: more digits would select another neighbour here and
    # there.
    position = np.arange(new_size, dtype=np.float32) * np.float32(size / new_size)
    first = np.minimum(position.astype(np.intp), size - 1)
    return first, np.minimum(first + 1, size - 1), position - first.astype(np.float32)


def _blend(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Interpolates linearly along axis 0 in float32; weight [n]."""
    result = first.astype(np.float32)
    step = second.astype(np.float32)
    step -= result
    step *= weight[:, None, None]
    result += step
    return result


def resize_to_square(image: np.ndarray, size: int, *, interpolation: Interpolation) -> np.ndarray:
    """Scales a crop to a square, for training.

    Quality: for four photographs of 500x375 shrunk to 224, compared with an antialiased float
    resize (triangle filter), "linear" reaches 33-36 dB, "area" 40-44 dB and "reference" 28-32 dB
    (its image is also shifted by a fraction of a pixel), in about 0.15, 1.5 and 1.0 ms on one core;
    shrunk from full size (768 to 2,736 rows) they reach 29-31, 39-42 and 24-27 dB.

    Args:
        image: uint8 [H, W, 3].
        size: Side of the result, in pixels.
        interpolation: "linear" (OpenCV, half-pixel centres), "area" (antialiased if both sides
            shrink, else like "linear") or "reference" (`resize_bilinear`, as the original trained,
            rounded to integer levels).

    Returns:
        uint8 [size, size, 3].

    Raises:
        ValueError: If the interpolation is unknown.
    """
    if interpolation == "reference":
        return np.rint(resize_bilinear(image, size, size)).astype(np.uint8)
    if interpolation not in ("linear", "area"):
        raise ValueError(f"interpolation={interpolation!r}: use 'linear', 'area' or 'reference'")
    shrinks = min(image.shape[:2]) >= size
    antialiased = interpolation == "area" and shrinks
    # Where an image grows, OpenCV's INTER_AREA resembles nearest neighbours.
    flag = cv2.INTER_AREA if antialiased else cv2.INTER_LINEAR
    return cv2.resize(image, (size, size), interpolation=flag)


def flip(image: np.ndarray) -> np.ndarray:
    """Mirrors left to right: [H, W, C] -> [H, W, C], contiguous."""
    # image[:, ::-1] would be a view with negative strides, which OpenCV does not take.
    return cv2.flip(image, 1)


def central_view(image: np.ndarray, size: int) -> np.ndarray:
    """Returns the evaluation view of the training scripts: the central 80% of each side.

    A tenth of each side, rounded down (the rule of TensorFlow 1), is cropped at both ends; the rest
    is resized by `resize_bilinear`.

    Args:
        image: uint8 [H, W, 3].
        size: Side of the result, in pixels.

    Returns:
        float32 [size, size, 3] in [-1, 1].
    """
    height, width = image.shape[:2]
    top, left = height // 10, width // 10
    middle = image[top : height - top, left : width - left]
    view = resize_bilinear(middle, size, size)
    view *= np.float32(2 / 255)
    view -= np.float32(1)
    return view


def short_side_view(image: np.ndarray, size: int) -> np.ndarray:
    """Returns the view of the feature and tagging scripts: short side 256/224 of size, centre crop.

    Args:
        image: uint8 [H, W, 3].
        size: Side of the result, in pixels.

    Returns:
        uint8 [size, size, 3]; `augment.to_model_input` maps it to [-1, 1].

    Raises:
        ValueError: If one side is more than MAX_ELONGATION times the other.
    """
    return _centre(_scale_short_side(image, size), size)


def ten_crop_views(image: np.ndarray, size: int) -> np.ndarray:
    """Returns the four corners and the centre of the scaled image, then those of its mirror image.

    Args:
        image: uint8 [H, W, 3].
        size: Side of each view, in pixels.

    Returns:
        uint8 [10, size, size, 3]: top left, top right, bottom left, bottom right, centre; mirrored.

    Raises:
        ValueError: If one side is more than MAX_ELONGATION times the other.
    """
    scaled = _scale_short_side(image, size)
    return np.stack([view for side in (scaled, flip(scaled)) for view in _five_views(side, size)])


def _five_views(scaled: np.ndarray, size: int) -> list[np.ndarray]:
    head, tail = slice(None, size), slice(-size, None)
    corners = [scaled[rows, columns] for rows in (head, tail) for columns in (head, tail)]
    return [*corners, _centre(scaled, size)]


def _centre(image: np.ndarray, size: int) -> np.ndarray:
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return np.ascontiguousarray(image[top : top + size, left : left + size])


def _scale_short_side(image: np.ndarray, size: int) -> np.ndarray:
    """Scales the short side to size * 256 / 224; the long side is rounded down, as published."""
    height, width = image.shape[:2]
    if max(height, width) > MAX_ELONGATION * min(height, width):
        raise ValueError(
            f"image of {height}x{width} pixels: one side is over {MAX_ELONGATION} times the "
            "other; remove it or crop it"
        )
    short = round(size * 256 / 224)
    # The order of these float operations can change the result by a pixel: the ratio first.
    new_height = short if height <= width else int(height / width * short)
    new_width = int(width / height * short) if height <= width else short
    return cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
