# SPDX-License-Identifier: BSD-3-Clause
"""Images of any form, cut and stacked a few at a time; one that is bad costs its own row."""

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

_THREADS = 8  # that decode
_LOGGED_ERRORS = 20


class Cut(NamedTuple):
    """Images in input order.

    Attributes:
        images: [n, ...]; a bad one is black.
        errors: what is wrong, by position among all images.
        start: position of the first one.
    """

    images: np.ndarray
    errors: dict[int, str]
    start: int

    @property
    def good(self) -> np.ndarray:
        """Whether each image is one, bool [n]."""
        positions = np.arange(self.start, self.start + len(self.images))
        return ~np.isin(positions, list(self.errors))


def cut_images(
    images: UserImages,
    cut: Callable[[UserImage], np.ndarray],
    *,
    empty: np.ndarray,
    at_once: int,
    on_error: OnError | None = None,
) -> Iterator[Cut]:
    """Yields at most `at_once` images at a time; none are held longer.

    Args:
        images: one or several.
        cut: an image to an array like `empty`.
        empty: what a bad image becomes.
        at_once: images of one result.
        on_error: "raise" ends at the first bad image, "row" goes on; None: raise if there is one
            image and not several.

    Raises:
        BadImage: names the image that cannot be decoded; with "raise".
        OSError: a file that cannot be read; with "raise".
        ValueError: another `on_error`.
    """
    if on_error not in ("raise", "row", None):
        raise ValueError(f"on_error={on_error!r} is neither 'raise' nor 'row'")
    raises = (on_error or ("raise" if user_images.is_one(images) else "row")) == "raise"
    listed, start, logged = user_images.each(images), 0, 0

    def attempt(numbered: tuple[int, UserImage]) -> np.ndarray | Exception:
        position, image = numbered
        try:
            return cut(image)
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
                    logging.warning("a row without numbers: %s", errors[position])
            rows = [empty if isinstance(result, Exception) else result for result in found]
            yield Cut(np.stack(rows), errors, start)
            start += len(part)
