# SPDX-License-Identifier: BSD-3-Clause
"""The limits of the device: bytes per second of a copy, FLOP/s of a matrix product."""

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from accelerator_sections import Section, Settings, table

ROUNDS = 7


def measure(settings: Settings) -> Iterator[Section]:
    """Measures a copy too large for any cache, and a square product in the given and full dtype."""
    on_cpu = jax.devices()[0].platform == "cpu"
    elements, side = (1 << 22, 1024) if on_cpu else (1 << 29, 8192)
    values: dict[str, float] = {}

    data = jax.random.normal(jax.random.key(0), (elements,), jnp.float32)
    seconds = _seconds(jax.jit(lambda x: x + 1), data)
    values["copy, GB/s"] = 2 * data.nbytes / seconds / 1e9  # every byte is read and written
    del data
    for name in dict.fromkeys((settings.dtype, "float32")):
        # Random numbers, since products of zeros run faster than any real data.
        factor = jax.random.normal(jax.random.key(1), (side, side), jnp.dtype(name))
        for precision in ("default", "highest") if name == "float32" else ("default",):
            product = jax.jit(functools.partial(_square, precision=precision))
            seconds = _seconds(product, factor)
            values[f"product {name}, {precision}, TFLOP/s"] = 2 * side**3 / seconds / 1e12
    rows = [[name, f"{value:.1f}"] for name, value in values.items()]
    yield Section(table([f"{jax.devices()[0].device_kind}", "measured"], rows), values)


def _square(x: jax.Array, *, precision: str) -> jax.Array:
    return jnp.matmul(x, x, precision=precision)


def _seconds(function: Callable[[Any], Any], argument: Any, repeats: int = 10) -> float:
    """Returns the time of one call: the median over rounds of consecutive calls."""
    jax.block_until_ready(function(argument))
    rounds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(repeats):
            result = function(argument)
        jax.block_until_ready(result)
        rounds.append((time.perf_counter() - start) / repeats)
    return statistics.median(rounds)
