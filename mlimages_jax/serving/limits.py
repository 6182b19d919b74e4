# SPDX-License-Identifier: BSD-3-Clause
"""Limits of one request, quotas that all requests share, and refusals."""

import dataclasses
from types import TracebackType

from mlimages_jax.data.images.decode import MAX_PIXELS


class ServingError(ValueError):
    """Raised if a server cannot start with these options."""


class RefusedError(Exception):
    """A request that gets an error instead of a result.

    Attributes:
        status: HTTP status.
        reason: One word for programs.
        message: A sentence for people.
        retry_after: Seconds after which the same request may succeed; None if it never will.
    """

    def __init__(self, status: int, reason: str, message: str, *, retry_after: int | None = None):
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of requests.

    Attributes:
        images: Images of one request.
        image_bytes: Size of one image file.
        request_bytes: Size of a request's body.
        body_seconds: Time in which the body must arrive.
        pixels: Width times height that the header of an image may claim.
        queue: Images of all requests, from their arrival to their result.
        bytes_in_flight: Size of all bodies that are held at the same time.
    """

    images: int = 32
    image_bytes: int = 20_000_000
    request_bytes: int = 64_000_000
    body_seconds: float = 60.0
    pixels: int = MAX_PIXELS
    queue: int = 256
    bytes_in_flight: int = 512_000_000

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) <= 0:
                raise ServingError(f"{field.name}={getattr(self, field.name)}: give more than 0")
        if self.images > self.queue:
            raise ServingError(
                f"a request of {self.images} images never fits into a queue of {self.queue}: "
                "give a longer queue or allow fewer images"
            )
        if self.pixels > MAX_PIXELS:
            raise ServingError(f"pixels={self.pixels:,}: decoders take at most {MAX_PIXELS:,}")
        if self.request_bytes > self.bytes_in_flight:
            raise ServingError(
                f"a request of {self.request_bytes / 1e6:g} MB never fits into the "
                f"{self.bytes_in_flight / 1e6:g} MB of all requests: allow smaller ones"
            )


class QuotaError(Exception):
    """A quota is used up at the moment."""


class Quota:
    """An amount that all requests share; what exceeds it is refused, never queued.

    Used in one thread only, that of the event loop.

    Args:
        limit: The amount.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.used = 0

    def check(self, amount: int = 1) -> None:
        """Checks that an amount is available, without taking it.

        Raises:
            QuotaError: Less than that is left.
        """
        if self.used + amount > self.limit:
            raise QuotaError

    def hold(self) -> "Held":
        """Returns a context that holds nothing at first and releases everything at its end."""
        return Held(self)


class Held:
    """A request's part of a quota."""

    def __init__(self, quota: Quota):
        self._quota = quota
        self._amount = 0

    def add(self, amount: int) -> None:
        """Takes more of the quota.

        Raises:
            QuotaError: Less than that is left; what is held already stays held.
        """
        self._quota.check(amount)  # and taken at once: no await lets another request in between
        self._quota.used += amount
        self._amount += amount

    def __enter__(self) -> "Held":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._quota.used -= self._amount
        self._amount = 0
