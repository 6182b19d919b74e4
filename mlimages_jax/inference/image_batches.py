# SPDX-License-Identifier: BSD-3-Clause
"""Decodes and crops images in any form and stacks them in batches; a bad image gets an error."""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import numpy as np
from absl import logging

from mlimages_jax.data.images.decode import BadImage
from mlimages_jax.files.escaping import one_line
from mlimages_jax.inference import user_images
from mlimages_jax.inference.user_images import UserImage, UserImages

OnError = Literal["raise", "row"]

_THREADS = 8  # for decoding
_LOGGED_ERRORS = 20


class CroppedImages(NamedTuple):
    """Consecutive cropped images, in input order.

    Attributes:
        images: Array [n, ...]; a bad image is black.
        errors: Error messages by position among all images.
        start: Position of the first image.
    """

    images: np.ndarray
    errors: dict[int, str]
    start: int

    @property
    def good(self) -> np.ndarray:
        """Mask of the images without an error, bool [n]."""
        positions = np.arange(self.start, self.start + len(self.images))
        return ~np.isin(positions, list(self.errors))

    def with_bad(self, rows: np.ndarray) -> np.ndarray:
        """Returns the rows of the good images, float32, with a row of nan for every bad one.

        Args:
            rows: [number of good images, ...].
        """
        every = np.full((len(self.images), *rows.shape[1:]), np.nan, np.float32)
        every[self.good] = rows
        return every


def crop_images(
    images: UserImages,
    crop: Callable[[UserImage], np.ndarray],
    *,
    empty: np.ndarray,
    at_once: int,
    on_error: OnError | None = None,
) -> Iterator[CroppedImages]:
    """Yields at most `at_once` images at a time and keeps no more than these in memory.

    Args:
        images: One image or several.
        crop: Maps an image to an array of the shape and dtype of `empty`.
        empty: Stands in for a bad image.
        at_once: Number of images per result.
        on_error: "raise" stops at the first bad image, "row" records its error and continues.
            None means "raise" for one image and "row" for several.

    Raises:
        BadImage: With "raise", if an image cannot be decoded; the message names it.
        OSError: With "raise", if a file cannot be read.
        ValueError: If `on_error` has another value.
    """
    if on_error not in ("raise", "row", None):
        raise ValueError(f"on_error={on_error!r} is neither 'raise' nor 'row'")
    raises = (on_error or ("raise" if user_images.is_one(images) else "row")) == "raise"
    listed, start, logged = user_images.each(images), 0, 0

    def attempt(numbered: tuple[int, UserImage]) -> np.ndarray | Exception:
        position, image = numbered
        # Returned, not raised: `pool.map` would lose the images after the first exception.
        try:
            return crop(image)
        except BadImage as error:
            name = user_images.name_of(image, position)
            return BadImage(error.reason, f"{name}: {error}")
        except OSError as error:
            return error

    with ThreadPoolExecutor(_THREADS) as pool:
        while part := list(itertools.islice(listed, at_once)):
            found = list(pool.map(attempt, enumerate(part, start)))
            errors: dict[int, str] = {}
            for position, result in enumerate(found, start):
                if not isinstance(result, Exception):
                    continue
                if raises:
                    raise result
                errors[position] = one_line(str(result))
                if (logged := logged + 1) <= _LOGGED_ERRORS:
                    logging.warning("no result for an image: %s", errors[position])
            rows = [empty if isinstance(result, Exception) else result for result in found]
            yield CroppedImages(np.stack(rows), errors, start)
            start += len(part)
