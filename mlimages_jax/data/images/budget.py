# SPDX-License-Identifier: BSD-3-Clause
"""Limits the memory of decoding: for one image, and for all images a process decodes at once."""

import collections
import os
import threading

from mlimages_jax.data.images.image_types import BadImage, ImageHeader

BYTES_PER_PIXEL = 3  # of the result
BYTES_BESIDE = 100_000_000  # that the decoder of one image may use in addition to its result
BYTES_IN_FLIGHT = 800_000_000  # for all threads: two images of maximum size and many small ones


def decoding_bytes(header: ImageHeader, *, pixels: int | None = None) -> int:
    """Returns the peak memory of decoding an image, on top of what the process already uses.

    Args:
        header: Header of the image.
        pixels: Number of pixels of the result, if it is reduced or a part; None means all.

    Raises:
        BadImage: too_large, above `BYTES_PER_PIXEL` for each pixel of the file plus `BYTES_BESIDE`.
    """
    whole = header.width * header.height
    result = BYTES_PER_PIXEL * (whole if pixels is None else pixels)
    allowed = BYTES_PER_PIXEL * whole + BYTES_BESIDE
    if header.held + result > allowed:
        raise BadImage(
            "too_large",
            f"decoding {header.width} x {header.height} pixels of this kind of {header.format} "
            f"would take {(header.held + result) / 1e6:,.0f} MB; {allowed / 1e6:,.0f} MB are "
            "allowed: shrink it, or convert it to baseline JPEG",
        )
    return header.held + result


class Budget:
    """Bytes shared by many threads, first come, first served.

    A request larger than the budget waits until nothing else is held and then runs alone, so a
    small budget delays large images but never refuses them.

    Args:
        limit: Size of the budget in bytes.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._used = 0
        self._waiting: collections.deque[object] = collections.deque()
        self._lock = threading.Lock()  # locking it directly is far cheaper than the condition
        self._changed = threading.Condition(self._lock)

    def hold(self, amount: int) -> "_Held":
        """Returns a context that waits for `amount` bytes and releases them at its end.

        A thread must not hold two at a time, because it could wait for itself.
        """
        return _Held(self, amount)

    def take(self, amount: int) -> None:
        """Waits for `amount` bytes; must be followed by `give_back`."""
        with self._lock:
            if not self._waiting and self._used + amount <= self._limit:
                self._used += amount
                return
            # First come, first served: otherwise small requests could starve a large one.
            ticket = object()
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._is_next(ticket, amount))
                self._used += amount
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def give_back(self, amount: int) -> None:
        """Releases `amount` bytes."""
        with self._lock:
            self._used -= amount
            if self._waiting:
                self._changed.notify_all()

    def _is_next(self, ticket: object, amount: int) -> bool:
        fits = self._used == 0 or self._used + amount <= self._limit
        return fits and self._waiting[0] is ticket


class _Held:
    """A hand-written context: one from contextlib would cost each image five times as much."""

    def __init__(self, shared: Budget, amount: int):
        self._shared = shared
        self._amount = amount

    def __enter__(self) -> None:
        self._shared.take(self._amount)

    def __exit__(self, *_: object) -> None:
        self._shared.give_back(self._amount)


in_flight = Budget(BYTES_IN_FLIGHT)


def _forget_other_threads() -> None:
    """Resets the budget: a forked process has neither the threads that held bytes nor locks."""
    # In place, because other modules have imported the object.
    in_flight.__init__(BYTES_IN_FLIGHT)  # type: ignore[misc]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)
