# SPDX-License-Identifier: BSD-3-Clause
"""Exchanges values between the processes of a job; every process must make each of these calls.

Short texts pass through the coordination service of process 0, which works before a device is used
and waits as long as the others are running. Numbers pass from device to device, which is faster but
fails if another process is half a minute late.
"""

import itertools
import json
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from mlimages_jax.distributed import coordination

T = TypeVar("T")

_DAY_MS = 86_400_000  # in effect no timeout; `peer_watch` notices processes that are lost
_calls = itertools.count()  # the same on all processes; the service accepts a name only once


def is_one_of_many() -> bool:
    """Returns whether there are other processes, without touching a device."""
    return jax.distributed.is_initialized() and coordination.membership().count > 1


def process_number() -> int:
    """Returns the number of this process, from 0, without touching a device."""
    return coordination.membership().number if is_one_of_many() else 0


def barrier(name: str) -> None:
    """Waits for all processes, without a timeout.

    Args:
        name: What they wait for, for the error message if one is lost.
    """
    if is_one_of_many():
        coordination.client().wait_at_barrier(f"mlimages_jax/{next(_calls)} {name}", _DAY_MS)


def exchanged(text: str) -> list[str]:
    """Gathers one short text from every process, in the order of the processes."""
    if not is_one_of_many():
        return [text]
    client = coordination.client()
    place = f"mlimages_jax/said/{next(_calls)}"
    # Zeros in front make the order of the keys that of the processes; the "=" keeps an empty text
    # from being an empty value.
    client.key_value_set(f"{place}/{process_number():06d}", f"={text}")
    client.wait_at_barrier(place, _DAY_MS)
    said = dict(client.key_value_dir_get(f"{place}/"))
    return [said[key].removeprefix("=") for key in sorted(said)]


def of_process_0(value: T) -> T:
    """Returns process 0's value, a JSON value, on every process.

    Needed wherever processes might decide differently, such as on the newest checkpoint: a shared
    disk may show a new file to one of them before the others.
    """
    return json.loads(exchanged(json.dumps(value) if process_number() == 0 else "")[0])


def gathered(tree: Any) -> Any:
    """Gathers arrays over the devices.

    Args:
        tree: Arrays of at most 32 bits a number, with the same shapes on every process.

    Returns:
        NumPy arrays with a leading axis of processes.
    """
    return multihost_utils.process_allgather(tree)


def gathered_lines(lines: Sequence[str]) -> list[str]:
    """Gathers lines over the devices, in process order; lines must not contain line ends."""
    if jax.process_count() == 1:
        return list(lines)
    text = np.frombuffer("\n".join(lines).encode(), np.uint8)
    lengths = gathered(np.array(len(text))).tolist()
    # Padded to a power of two: every new length would compile another gather.
    filled = np.zeros(1 << max(lengths).bit_length(), np.uint8)
    filled[: len(text)] = text
    parts = [
        row[:length].tobytes().decode()
        for row, length in zip(gathered(filled), lengths, strict=True)
    ]
    # A process without lines sent an empty text, which splits into one empty line.
    return [line for part in parts if part for line in part.split("\n")]
