# SPDX-License-Identifier: BSD-3-Clause
"""Collects images that arrive one by one into batches of sizes that are already compiled."""

import collections
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

Outputs = dict[str, np.ndarray]


class _Waiting(NamedTuple):
    image: np.ndarray
    arrived: float
    result: "Future[Outputs]"


def batch_sizes(max_batch: int) -> list[int]:
    """Returns 1, 2, 4, ... and `max_batch`, the sizes for which programs are compiled."""
    return [1 << power for power in range((max_batch - 1).bit_length())] + [max_batch]


def best_size(waiting: int, seconds: Mapping[int, float]) -> int:
    """Returns the batch size that finishes most of the waiting images per second.

    An accelerator takes about as long for 16 images as for 20 padded to 32, so there the larger
    batch wins; a CPU takes twice as long, so there 16 now and 4 later are faster.

    Args:
        waiting: Number of waiting images, at least 1.
        seconds: Measured duration of a batch by its size.
    """
    return max(seconds, key=lambda size: (min(waiting, size) / seconds[size], size))


class Batcher:
    """A thread that collects images and runs them in batches, first come, first served.

    A batch starts when the largest size is full, or when its first image has waited for `delay`.
    While a batch runs, images collect for the next one, so under load nothing waits for the delay.

    Args:
        compute: Maps images [b, ...] to arrays [b, ...] by name; b is one of the sizes.
        seconds: Measured duration of a batch by its size, see `best_size`.
        delay: Seconds to wait for more images.
        observe: Called after each batch with the number of images, the size and the seconds.
    """

    def __init__(
        self,
        compute: Callable[[np.ndarray], Outputs],
        *,
        seconds: Mapping[int, float],
        delay: float,
        observe: Callable[[int, int, float], None] = lambda images, size, seconds: None,
    ):
        self._compute = compute
        self._seconds = dict(seconds)
        self._delay = delay
        self._observe = observe
        self._waiting: collections.deque[_Waiting] = collections.deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    @property
    def images_per_second(self) -> float:
        """The highest rate of all batch sizes."""
        return max(size / seconds for size, seconds in self._seconds.items())

    def submit(self, image: np.ndarray) -> "Future[Outputs]":
        """Queues an image [S, S, 3]; the result has one row of every output.

        Raises:
            RuntimeError: After `close`.
        """
        result: Future[Outputs] = Future()
        with self._changed:
            if self._closing:
                raise RuntimeError("the batcher is closed")
            self._waiting.append(_Waiting(image, time.monotonic(), result))
            self._changed.notify()
        return result

    def close(self) -> None:
        """Runs what is waiting, without further delay, and ends the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            if not batch:  # all were cancelled: their clients have gone
                continue
            try:
                rows = self._outputs([one.image for one in batch])
            except Exception as error:  # of these images only: the next batch may succeed
                for one in batch:
                    one.result.set_exception(error)
                continue
            for one, row in zip(batch, rows, strict=True):
                one.result.set_result(row)

    def _next_batch(self) -> list[_Waiting] | None:
        """Waits for a batch and returns it without cancelled images; None after the last one."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if self._waiting:
                due = self._waiting[0].arrived + self._delay
                self._changed.wait_for(
                    lambda: self._closing or len(self._waiting) >= max(self._seconds),
                    timeout=max(0.0, due - time.monotonic()),
                )
            if not self._waiting:
                return None
            count = min(len(self._waiting), best_size(len(self._waiting), self._seconds))
            batch = [self._waiting.popleft() for _ in range(count)]
        # From here on they cannot be cancelled, so that `set_result` does not raise.
        return [one for one in batch if one.result.set_running_or_notify_cancel()]

    def _outputs(self, images: list[np.ndarray]) -> list[Outputs]:
        begin = time.monotonic()
        size = min(size for size in self._seconds if size >= len(images))
        # Any other size would be compiled first, which takes seconds to minutes.
        padded = np.zeros((size, *images[0].shape), images[0].dtype)
        np.stack(images, out=padded[: len(images)])
        outputs = self._compute(padded)
        self._observe(len(images), size, time.monotonic() - begin)
        return [
            {name: rows[position] for name, rows in outputs.items()}
            for position in range(len(images))
        ]
