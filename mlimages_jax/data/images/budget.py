# SPDX-License-Identifier: BSD-3-Clause
"""How much memory decoding may take: of one image, and of all that a process decodes at a time."""

import collections
import os
import threading

from mlimages_jax.data.images.image_types import BadImage, ImageHeader

BYTES_PER_PIXEL = 3  # of the result
BYTES_BESIDE = 100_000_000  # what the decoder of one image may hold beside its result
BYTES_IN_FLIGHT = 800_000_000  # of all threads: two of the largest images and many small ones


def decoding_bytes(header: ImageHeader, *, pixels: int | None = None) -> int:
    """The peak of decoding an image, above what the process held before.

    Args:
      header: Of the image.
      pixels: Of the result, where it is a reduced image or a part; None: all.

    Raises:
      BadImage: too_large: over `BYTES_PER_PIXEL` for each pixel of the file and `BYTES_BESIDE`.
    """
    whole = header.width * header.height
    result = BYTES_PER_PIXEL * (whole if pixels is None else pixels)
    allowed = BYTES_PER_PIXEL * whole + BYTES_BESIDE
    if header.held + result > allowed:
        raise BadImage(
            "too_large",
            f"decoding {header.width} x {header.height} pixels of this kind of {header.format} "
            f"would take {(header.held + result) / 1e6:,.0f} MB, {allowed / 1e6:,.0f} MB are "
            "allowed: shrink it, or convert it to baseline JPEG",
        )
    return header.held + result


class Budget:
    """Bytes that many threads share, first come, first served.

    A request over the whole budget waits until nothing else is held and then passes alone, so a
    small budget makes large images wait but never refuses them.

    Args:
      limit: In bytes.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._used = 0
        self._waiting: collections.deque[object] = collections.deque()
        self._lock = threading.Lock()  # entered by itself it costs a fraction of the condition
        self._changed = threading.Condition(self._lock)

    def hold(self, amount: int) -> "_Held":
        """Waits, as a context, for so many bytes, and gives them back.

        A thread must not hold twice at a time.
        """
        return _Held(self, amount)

    def take(self, amount: int) -> None:
        """Waits for so many bytes; `give_back` must follow."""
        with self._lock:
            if not self._waiting and self._used + amount <= self._limit:
                self._used += amount
                return
            # In the order of arrival: many small requests would else keep a large one out forever.
            ticket = object()
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._is_next(ticket, amount))
                self._used += amount
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def give_back(self, amount: int) -> None:
        """What was taken."""
        with self._lock:
            self._used -= amount
            if self._waiting:
                self._changed.notify_all()

    def _is_next(self, ticket: object, amount: int) -> bool:
        fits = self._used == 0 or self._used + amount <= self._limit
        return fits and self._waiting[0] is ticket


class _Held:
    """A context of its own: of contextlib's kind it would cost each image five times as much."""

    def __init__(self, shared: Budget, amount: int):
        self._shared = shared
        self._amount = amount

    def __enter__(self) -> None:
        self._shared.take(self._amount)

    def __exit__(self, *_: object) -> None:
        self._shared.give_back(self._amount)


in_flight = Budget(BYTES_IN_FLIGHT)


def _forget_other_threads() -> None:
    """A forked process has none of the threads that held something, nor their locks."""
    in_flight.__init__(BYTES_IN_FLIGHT)  # type: ignore[misc]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)
