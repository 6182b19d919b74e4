# SPDX-License-Identifier: BSD-3-Clause
"""Turns a stored image into a view of one size: random for training, fixed for evaluation."""

import dataclasses
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from mlimages_jax.data.images import transforms
from mlimages_jax.data.images.decode import (
    BadImage,
    decode,
    decode_box,
    read_header,
)

ViewName = Literal["central", "short_side", "ten_crop", "whole"]
VIEW_NAMES: tuple[ViewName, ...] = get_args(ViewName)


@dataclasses.dataclass(frozen=True)
class TrainingView:
    """A random view of a training image: its crop, size and augmentation.

    Attributes:
        size: Side of the result in pixels.
        area: Range of the crop's fraction of the image's area.
        aspect: Range of the crop's width / height.
        interpolation: See `transforms.resize_to_square`.
        flip: Whether to mirror half of the images.
        distort: Maps (uint8 [S, S, 3], generator) to the same shape, after crop and flip; None does
            nothing.
    """

    size: int
    area: tuple[float, float] = (0.7, 1.0)
    aspect: tuple[float, float] = (0.75, 1.33)
    interpolation: transforms.Interpolation = "linear"
    flip: bool = True
    distort: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None

    def __call__(self, data: bytes, rng: np.random.Generator) -> np.ndarray:
        """Decodes image bytes to uint8 [size, size, 3]; of a JPEG little more than the crop.

        Raises:
            BadImage: If the image cannot be decoded.
        """
        # The crop is drawn before anything is decoded, so that the decoder can skip the rest.
        header = read_header(data)
        box = transforms.sample_crop(
            rng, header.height, header.width, area=self.area, aspect=self.aspect
        )
        crop = decode_box(data, box, size=self.size, header=header)
        image = transforms.resize_to_square(crop, self.size, interpolation=self.interpolation)
        if self.flip and rng.random() < 0.5:
            image = transforms.flip(image)
        return self.distort(image, rng) if self.distort else image


@dataclasses.dataclass(frozen=True)
class EvaluationView:
    """A fixed view of an image: one that was published for evaluation, or the full image.

    Attributes:
        size: Side of the result in pixels.
        name: "central" (central 80% of each side, unrounded, float32), "short_side" (short side
            to 256/224 of the size, then centre crop, uint8), "ten_crop" (scaled the same, four
            corners and centre, and their mirror images, uint8) or "whole" (the full image squeezed
            to a square, uint8).
        exif_orientation: Whether to apply the EXIF orientation first.
    """

    size: int
    name: ViewName = "central"
    exif_orientation: bool = False

    def __call__(self, data: bytes) -> np.ndarray:
        """Decodes image bytes to [size, size, 3], or [10, size, size, 3] for ten crops.

        Raises:
            BadImage: If the image cannot be decoded, or is too elongated to be scaled.
        """
        return self.crop(decode(data, exif_orientation=self.exif_orientation))

    def crop(self, pixels: np.ndarray) -> np.ndarray:
        """Does the same for decoded pixels, uint8 [H, W, 3].

        Raises:
            BadImage: If the image is too elongated to be scaled.
        """
        if self.name == "central":
            return transforms.central_view(pixels, self.size)
        if self.name == "whole":
            return transforms.resize_to_square(pixels, self.size, interpolation="area")
        one = self.name == "short_side"
        scaled = transforms.short_side_view if one else transforms.ten_crop_views
        try:
            return scaled(pixels, self.size)
        except ValueError as error:
            raise BadImage("elongated", str(error)) from error

    @property
    def empty(self) -> np.ndarray:
        """A black view, with the shape and dtype of every result."""
        views = (10,) if self.name == "ten_crop" else ()
        dtype = np.float32 if self.name == "central" else np.uint8
        return np.zeros((*views, self.size, self.size, 3), dtype)
