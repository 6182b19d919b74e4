# SPDX-License-Identifier: BSD-3-Clause
"""One pass over images on all devices of all processes: read, decode, run, give back in order.

An image that cannot be read or decoded is an error of its row and ends nothing.
"""

import functools
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import cv2
import grain
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax import Array
from jax.sharding import Mesh

from mlimages_jax.data.images.decode import BadImage
from mlimages_jax.data.pipeline import DeviceBatches, TooManyBadImagesError
from mlimages_jax.distributed import sharding
from mlimages_jax.evaluation.evaluate import local_rows, one_behind
from mlimages_jax.files.escaping import one_line
from mlimages_jax.inference.image_source import ImageSource

NO_IMAGE = -1  # as a position: a row that only fills a batch

_AT_ONCE = 16  # images at most that a thread hands over together
_LOGGED_ERRORS = 20


class View(Protocol):
    """Cuts an image; an `EvaluationView` is one."""

    @property
    def empty(self) -> np.ndarray:
        """A black result, which tells shape and dtype."""
        ...

    def __call__(self, data: bytes, /) -> np.ndarray:
        """The bytes of an image file to an array; `BadImage` when they cannot be decoded."""
        ...


class Rows(NamedTuple):
    """What came out for some images, in the order in which they were asked for.

    Attributes:
        positions: int64 [n], in the source.
        outputs: arrays [n, ...] by name; rows of errors are nan (0 where they are whole numbers).
        errors: "reason: message" by position.
    """

    positions: np.ndarray
    outputs: dict[str, np.ndarray]
    errors: dict[int, str]


class Speed(NamedTuple):
    """Where the time of a pass went, in seconds of this process.

    Attributes:
        images: that came out, errors among them.
        seconds: from the first image read to the last result taken, without compiling.
        reading: spent waiting for decoded images.
        network: spent waiting for the devices.
    """

    images: int
    seconds: float
    reading: float
    network: float

    @property
    def limit(self) -> str:
        """What took most of the time: reading, network, or results (what is done with them)."""
        shares = {"reading": self.reading, "network": self.network}
        shares["results"] = self.seconds - sum(shares.values())
        return max(shares, key=lambda name: shares[name])


def fitting_batch(batch_size: int, *, images: int, mesh: Mesh) -> int:
    """A batch size that is not larger than so few images need.

    Raises:
        ValueError: when it is not divisible by the devices.
    """
    sharding.check_batch(batch_size=batch_size, group_size=None, mesh=mesh)
    return min(batch_size, max(1, math.ceil(images / mesh.size)) * mesh.size)


class Predictions:
    """The outputs of a function for images; iterate over it once.

    With several processes each reads, and gives back, its own batch_size / process_count
    consecutive rows of every global batch. All of them make the same number of batches, so that
    the function may communicate.

    Args:
        source: the same on all processes.
        view: cuts the images.
        function: (weights, images [B, ...]) -> arrays [B, ...] by name; jitted here.
        weights: its first argument, on the mesh.
        mesh: over all devices.
        batch_size: global, divisible by the devices; the last batch is filled up with black.
        positions: in the source, in the order wanted, the same on all processes; NO_IMAGE is a
            black row without a result. None: all images in order.
        start: entries of `positions` to leave out at the beginning, to go on with a pass.
        max_errors: one more ends the pass; None: any number is fine.
        num_threads: that read and decode.

    Attributes:
        row_shapes: shapes of a row of every output.
        speed: of what has come out so far.

    Raises:
        ValueError: when the devices do not divide the batch.
        TooManyBadImagesError: while iterating, over `max_errors` of this process.
    """

    def __init__(
        self,
        source: ImageSource,
        view: View,
        function: Callable[[Any, Array], dict[str, Array]],
        weights: Any,
        *,
        mesh: Mesh,
        batch_size: int,
        positions: Sequence[int] | np.ndarray | None = None,
        start: int = 0,
        max_errors: int | None = None,
        num_threads: int = 4,
    ):
        sharding.check_batch(batch_size=batch_size, group_size=None, mesh=mesh)
        self._source, self._view, self._weights, self._mesh = source, view, weights, mesh
        self._order = (range(len(source)) if positions is None else positions)[start:]
        self._batch_size, self._rows = batch_size, batch_size // jax.process_count()
        self._first = jax.process_index() * self._rows  # row of a global batch
        self._max_errors, self._num_threads = max_errors, num_threads
        self._errors: dict[int, str] = {}
        self._lock = threading.Lock()
        place = sharding.by_example(mesh)
        black = view.empty
        images = jax.ShapeDtypeStruct((batch_size, *black.shape), black.dtype, sharding=place)
        lowered = jax.jit(function, out_shardings=place).lower(weights, images)
        self.row_shapes = {name: value.shape[1:] for name, value in lowered.out_info.items()}
        self._step = lowered.compile()
        self.speed = Speed(0, 0.0, 0.0, 0.0)
        self._network_seconds, self._logged = 0.0, 0

    def __iter__(self) -> Iterator[Rows]:
        """Yields the rows of one batch after the other, while the next one is under way."""
        begin, found = time.perf_counter(), 0
        batches = DeviceBatches(self._batches(), self._mesh)
        for number, outputs in enumerate(one_behind(self._run(batches))):
            asked = time.perf_counter()
            values = {name: local_rows(array) for name, array in outputs.items()}
            self._network_seconds += time.perf_counter() - asked
            own = range(number * self._rows, (number + 1) * self._rows)
            rows = self._rows_of(np.array([self._position(row) for row in own]), values)
            images = self.speed.images + len(rows.positions)
            waits = batches.seconds_waited, self._network_seconds
            self.speed = Speed(images, time.perf_counter() - begin, *waits)
            found += len(rows.errors)
            if self._max_errors is not None and found > self._max_errors:
                position, error = list(rows.errors.items())[-1]
                raise TooManyBadImagesError(
                    f"{found} images cannot be read or decoded (limit {self._max_errors}), the "
                    f"last one: {self._source.names[position]}: {error}"
                )
            yield rows
            self.speed = self.speed._replace(seconds=time.perf_counter() - begin)

    def _run(self, batches: DeviceBatches) -> Iterator[dict[str, Array]]:
        for batch in batches:
            asked = time.perf_counter()
            outputs = self._step(self._weights, batch["image"])
            self._network_seconds += time.perf_counter() - asked
            yield outputs

    def _batches(self) -> Iterator[dict[str, np.ndarray]]:
        """Yields this process's rows of every global batch, decoded a few at a time."""
        batches = math.ceil(len(self._order) / self._batch_size)
        if not batches:
            return
        cv2.setNumThreads(1)  # the threads are ours: one image each
        at_once = math.gcd(self._rows, _AT_ONCE)
        dataset = grain.MapDataset.range(batches * self._rows).map(self._load).batch(at_once)
        in_batch = self._rows // at_once
        ahead = in_batch + self._num_threads  # the next batch, while the threads go on
        options = grain.ReadOptions(num_threads=self._num_threads, prefetch_buffer_size=ahead)
        parts = iter(dataset.to_iter_dataset(options))
        for _ in range(batches):
            taken = [part["image"] for part in itertools.islice(parts, in_batch)]
            yield {"image": np.concatenate(taken)}

    def _load(self, row: int) -> dict[str, np.ndarray]:
        position = self._position(row)
        if position == NO_IMAGE:
            return {"image": self._black}
        try:
            return {"image": self._view(self._source.read(position))}
        except BadImage as error:
            with self._lock:
                self._errors[position] = one_line(f"{error.reason}: {error}")
            return {"image": self._black}

    @functools.cached_property
    def _black(self) -> np.ndarray:
        return self._view.empty

    def _position(self, row: int) -> int:
        """In the source, of this process's row of all batches together."""
        number, place = divmod(row, self._rows)
        index = number * self._batch_size + self._first + place
        return int(self._order[index]) if index < len(self._order) else NO_IMAGE

    def _rows_of(self, positions: np.ndarray, values: dict[str, np.ndarray]) -> Rows:
        """Leaves out what only filled the batch, and marks the rows of errors."""
        kept = positions != NO_IMAGE
        positions = positions[kept]
        with self._lock:
            errors = {p: self._errors[p] for p in positions.tolist() if p in self._errors}
        for position, error in list(errors.items())[: _LOGGED_ERRORS - self._logged]:
            logging.warning("%s: %s", one_line(self._source.names[position]), error)
            self._logged += 1
        bad = np.isin(positions, list(errors))
        outputs = {}
        for name, array in values.items():
            outputs[name] = array[kept]  # a copy, which can be written to
            outputs[name][bad] = np.nan if jnp.issubdtype(array.dtype, jnp.floating) else 0
        return Rows(positions, outputs, errors)
