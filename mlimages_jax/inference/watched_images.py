# SPDX-License-Identifier: BSD-3-Clause
"""Scans repeatedly for images that are new, changed or deleted."""

import time
from collections.abc import Callable, Iterator

import numpy as np
from absl import logging

from mlimages_jax.distributed import preemption
from mlimages_jax.inference.image_source import ImageFiles, ImageSourceError, NoImagesError
from mlimages_jax.inference.line_index import keys_of

_SECONDS = 0.2  # between two checks for a request to stop


class WatchedImages:
    """The images of a folder or list, once for every change; iterate over it until it is stopped.

    An image that is still being written is not yielded yet: a new or changed one counts once its
    size and modification time are the same in two scans. In the first scan, images last written
    longer ago than an interval count at once.

    Args:
        look: Opens the images. Its errors are raised by the first scan; in later ones, errors such
            as those of an unmounted disk change nothing.
        interval: Seconds between two scans.

    Raises:
        Preempted: While iterating, when the program was asked to stop.
    """

    def __init__(self, look: Callable[[], ImageFiles], *, interval: float):
        self._look, self._interval = look, interval
        self._trouble, self._found = "", False
        self._first = self._try_look(may_fail=True)

    def __iter__(self) -> Iterator[ImageFiles]:
        images, known = self._first, None
        before = _written_by(images, time.time() - self._interval) if images else _NO_KEYS
        while True:
            if images:
                keys = _keys(images)
                settled = _settled(images, np.isin(keys, before), known)
                before = keys
                # Equal keys in another order are a change too, of a list.
                if len(settled) and not (
                    known and np.array_equal(_keys(settled), _keys(known))
                ):  # fmt: skip
                    known = settled
                    yield settled
            self._wait()
            images = self._try_look(may_fail=False)

    def _try_look(self, *, may_fail: bool) -> ImageFiles | None:
        """Returns the images; None if there are none, or if they cannot be listed."""
        try:
            images = self._look()
        except NoImagesError as error:
            trouble = f"{error}: {'nothing is changed' if self._found else 'waiting for images'}"
        except (OSError, ImageSourceError) as error:
            if may_fail:
                raise
            trouble = f"{error}: nothing is changed"
        else:
            self._trouble, self._found = "", True
            return images
        if trouble != self._trouble:  # once, not in every scan
            logging.warning("%s", trouble)
        self._trouble = trouble
        return None

    def _wait(self) -> None:
        end = time.monotonic() + self._interval
        while (left := end - time.monotonic()) > 0:
            preemption.check()
            time.sleep(min(left, _SECONDS))
        preemption.check()


_NO_KEYS = np.array([], np.uint64)


def _keys(images: ImageFiles) -> np.ndarray:
    return keys_of(map(images.identity, range(len(images))))


def _written_by(images: ImageFiles, seconds: float) -> np.ndarray:
    """Returns the keys of images that were last written before a time."""
    return _keys(images)[images.stamps[:, 1] < seconds * 1e9]


def _settled(images: ImageFiles, is_settled: np.ndarray, known: ImageFiles | None) -> ImageFiles:
    """Returns the images that do not change now, and the others as they were, if they were."""
    if is_settled.all():
        return images
    changing = {images.names[position] for position in np.flatnonzero(~is_settled).tolist()}
    former = {}
    if known:
        former = {
            known.names[position]: known.stamps[position]
            for position in range(len(known))
            if known.names[position] in changing
        }
    positions, stamps = [], []
    for position, ready in enumerate(is_settled.tolist()):
        name = images.names[position]
        if ready or name in former:
            positions.append(position)
            stamps.append(images.stamps[position] if ready else former[name])
    return images.some(positions, np.array(stamps, np.int64).reshape(-1, 2))
