# SPDX-License-Identifier: BSD-3-Clause
"""The platform that a program is traced for, where the best form of a computation depends on it."""

import contextlib
import contextvars
from collections.abc import Iterable, Iterator

import jax

_chosen: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)


def on_cpu() -> bool:
    """Returns whether what is traced now will run on a CPU; without `tracing_for`, as jax does.

    `lax.platform_dependent` would leave the choice to jax, but changes the CPU's program, and with
    it its rounding.
    """
    return (_chosen.get() or jax.default_backend()) == "cpu"


@contextlib.contextmanager
def tracing_for(devices: Iterable[jax.Device]) -> Iterator[None]:
    """Has programs traced for devices of one kind, which need not be there (`plan --check`)."""
    token = _chosen.set(next(iter(devices)).platform)
    try:
        yield
    finally:
        _chosen.reset(token)
