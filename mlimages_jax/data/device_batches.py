# SPDX-License-Identifier: BSD-3-Clause
"""Sends batches to the devices ahead of their use, and reads outputs late.

Both hide the host's work behind that of the devices, which run asynchronously: jax returns from a
call as soon as its program is dispatched.
"""

import collections
import time
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from mlimages_jax.distributed import sharding

T = TypeVar("T")


class DeviceBatches(Iterator[dict[str, jax.Array]]):
    """Puts batches on the devices of the mesh, a few ahead of their use.

    Attributes:
        seconds_waited: Total time spent waiting for batches of the host, whether or not the
            devices were busy.
    """

    def __init__(self, batches: Iterator[dict[str, np.ndarray]], mesh: Mesh, *, ahead: int = 2):
        self.seconds_waited = 0.0
        self._batches = batches
        self._sharding = sharding.by_example(mesh)
        self._ahead = ahead
        self._ready: collections.deque[dict[str, jax.Array]] = collections.deque()

    def close(self) -> None:
        """Ends what makes the batches, such as worker processes, and drops those that are ready."""
        self._ready.clear()
        if isinstance(self._batches, Generator):
            self._batches.close()

    def __next__(self) -> dict[str, jax.Array]:
        while len(self._ready) < self._ahead:
            start = time.perf_counter()
            batch: Any = next(self._batches, None)
            self.seconds_waited += time.perf_counter() - start
            if batch is None:
                break
            # jax returns before the transfer is complete, so it overlaps with the step that is
            # running.
            self._ready.append(
                {
                    name: jax.make_array_from_process_local_data(self._sharding, rows)
                    for name, rows in batch.items()
                }
            )
        if not self._ready:
            raise StopIteration
        return self._ready.popleft()


def one_behind(outputs: Iterator[T]) -> Iterator[T]:
    """Yields every item after requesting the next one, so that device and host work in parallel."""
    # Requesting an output dispatches its program, so the devices have work while the caller waits
    # for the one before.
    previous = next(outputs, None)
    for following in outputs:
        assert previous is not None
        yield previous
        previous = following
    if previous is not None:
        yield previous
