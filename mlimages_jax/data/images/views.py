# SPDX-License-Identifier: BSD-3-Clause
"""How a stored image becomes a view of one size: for training at random, for evaluation fixed."""

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

Protocol = Literal["central", "short_side", "ten_crop", "whole"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)


@dataclasses.dataclass(frozen=True)
class TrainingView:
    """How a training image is cut.

    Attributes:
        size: side of the result in pixels.
        area: range of the crop's share of the image.
        aspect: range of the crop's width / height.
        interpolation: see `transforms.resize_to_square`.
        flip: mirror half of the images.
        distort: (uint8 [S, S, 3], generator) -> the same, after crop and flip; None does nothing.
    """

    size: int
    area: tuple[float, float] = (0.7, 1.0)
    aspect: tuple[float, float] = (0.75, 1.33)
    interpolation: transforms.Interpolation = "linear"
    flip: bool = True
    distort: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None

    def __call__(self, data: bytes, rng: np.random.Generator) -> np.ndarray:
        """JPEG bytes to uint8 [size, size, 3]; a JPEG is decoded only as far as the crop needs.

        Raises:
            BadImage: when it cannot be decoded.
        """
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
    """How an evaluation image is cut: one of the published protocols, or the whole image.

    Attributes:
        size: side of the result in pixels.
        protocol: "central" (the middle 80% of each side, exact, float32), "short_side" (short side
            to 256/224 of the size, then the centre, uint8), "ten_crop" (scaled the same, four
            corners and the centre, mirrored too, uint8) or "whole" (all of it squeezed to a
            square, uint8).
        exif_orientation: turn images upright first, as their EXIF data say.
    """

    size: int
    protocol: Protocol = "central"
    exif_orientation: bool = False

    def __call__(self, data: bytes) -> np.ndarray:
        """The bytes of an image file to [size, size, 3], or to [10, size, size, 3] of ten crops.

        Raises:
            BadImage: when it cannot be decoded, or is too elongated to be scaled.
        """
        return self.cut(decode(data, exif_orientation=self.exif_orientation))

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """The same from decoded pixels, uint8 [H, W, 3].

        Raises:
            BadImage: when it is too elongated to be scaled.
        """
        if self.protocol == "central":
            return transforms.central_view(pixels, self.size)
        if self.protocol == "whole":
            return transforms.resize_to_square(pixels, self.size, interpolation="area")
        one = self.protocol == "short_side"
        scaled = transforms.short_side_view if one else transforms.ten_crop_views
        try:
            return scaled(pixels, self.size)
        except ValueError as error:
            raise BadImage("elongated", str(error)) from error

    @property
    def empty(self) -> np.ndarray:
        """A black result."""
        views = (10,) if self.protocol == "ten_crop" else ()
        dtype = np.float32 if self.protocol == "central" else np.uint8
        return np.zeros((*views, self.size, self.size, 3), dtype)
