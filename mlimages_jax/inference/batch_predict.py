# SPDX-License-Identifier: BSD-3-Clause
"""Runs a network over images on all devices of all processes and yields results in input order.

An image that cannot be read or decoded becomes a row with an error; the pass continues.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import grain
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax import Array
from jax.sharding import Mesh

from mlimages_jax.data import read_ahead
from mlimages_jax.data.device_batches import DeviceBatches, one_behind
from mlimages_jax.data.images.decode import BadImage
from mlimages_jax.data.pipeline import TooManyBadImagesError
from mlimages_jax.distributed import agreement, sharding
from mlimages_jax.files.escaping import one_line
from mlimages_jax.inference.image_source import ImageSource, open_images
from mlimages_jax.settings import Classify, Export, build

NO_IMAGE = -1  # a position that only pads the batch

_MAX_CHUNK = 16  # images that a reading thread batches before it hands them over
_LOGGED_ERRORS = 20


class View(Protocol):
    """Turns the bytes of an image file into the network's input, as an `EvaluationView` does."""

    @property
    def empty(self) -> np.ndarray:
        """A black view, with the shape and dtype of every result."""
        ...

    def __call__(self, data: bytes, /) -> np.ndarray:
        """Decodes and crops an image file; raises `BadImage` when it cannot be decoded."""
        ...


class PredictedRows(NamedTuple):
    """Results of some images, in the order in which they were requested.

    Attributes:
        positions: int64 [n], positions in the source.
        outputs: Arrays [n, ...] by name; rows with an error are nan (0 for integer outputs).
        errors: "reason: message" by position.
    """

    positions: np.ndarray
    outputs: dict[str, np.ndarray]
    errors: dict[int, str]


class Speed(NamedTuple):
    """The time of a pass by what it was spent on, in seconds, measured by this process.

    Attributes:
        images: Results yielded so far, including errors.
        seconds: Time from reading the first image to using the last result, without compilation.
        reading: Time spent waiting for decoded images.
        network: Time spent waiting for the devices.
    """

    images: int
    seconds: float
    reading: float
    network: float

    @property
    def limit(self) -> str:
        """The slowest part: "reading", "network", or "results" (the caller's own work)."""
        spent = {"reading": self.reading, "network": self.network}
        spent["results"] = self.seconds - sum(spent.values())
        return max(spent, key=lambda name: spent[name])


def open_shared(config: Classify | Export) -> ImageSource:
    """Opens the images that a task names, and checks that all processes find the same.

    Raises:
        FileNotFoundError, ImageSourceError, DataSetError: See `open_images`.
        DifferentProcessesError: If the processes find different images.
    """
    source = open_images(
        config.input, split=config.split or None, images_root=config.images_root or None
    )
    agreement.check_same({f"images in {config.input}, shared by all machines": source.digest})
    return source


def fitting_batch(batch_size: int, *, images: int, mesh: Mesh) -> int:
    """Returns the batch size, reduced if there are too few images to fill it.

    Raises:
        ConfigError: If `batch_size` is not divisible by the number of devices.
    """
    try:
        sharding.check_batch(batch_size=batch_size, group_size=None, mesh=mesh)
    except ValueError as error:
        raise build.ConfigError(f"config.{error}") from error
    return min(batch_size, max(1, math.ceil(images / mesh.size)) * mesh.size)


def _compiled(
    function: Callable[[Any, Array], dict[str, Array]], weights: Any, images: jax.ShapeDtypeStruct
) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """Compiles a function for a batch; also returns the shape of one row of every output."""
    lowered = jax.jit(function, out_shardings=images.sharding).lower(weights, images)
    shapes = {name: value.shape[1:] for name, value in lowered.out_info.items()}
    return lowered.compile(), shapes


class _Loaded(NamedTuple):
    """The view of an image; if there is none, black, and the position and why."""

    image: np.ndarray
    error: tuple[int, str] | None = None


class _Chunk(NamedTuple):
    """Some rows of a batch: views [n, ...], and positions and messages of the errors."""

    images: np.ndarray
    errors: list[tuple[int, str]]


def _chunk(rows: Sequence[_Loaded]) -> _Chunk:
    return _Chunk(np.stack([row.image for row in rows]), [row.error for row in rows if row.error])


@dataclasses.dataclass(frozen=True)
class _OwnRows:
    """Reads this process's rows of the global batches, maybe in worker processes."""

    source: ImageSource
    view: View
    order: Sequence[int] | np.ndarray
    batch_size: int
    rows: int
    first: int

    def position(self, row: int) -> int:
        """Position in the source of one of this process's rows, counted over all batches."""
        batch, offset = divmod(row, self.rows)
        index = batch * self.batch_size + self.first + offset
        return int(self.order[index]) if index < len(self.order) else NO_IMAGE

    def load(self, row: int) -> _Loaded:
        """Reads and crops an image."""
        position = self.position(row)
        if position == NO_IMAGE:
            return _Loaded(self._black)
        try:
            return _Loaded(self.view(self.source.read(position)))
        except BadImage as error:
            # Not raised: Grain would end the pass.
            return _Loaded(self._black, (position, one_line(f"{error.reason}: {error}")))

    @functools.cached_property
    def _black(self) -> np.ndarray:
        return self.view.empty


class Predictions:
    """The outputs of a function for images; iterate over it once, then over `at` other positions.

    With several processes, each one reads and yields its own batch_size / process_count
    consecutive rows of every global batch. All processes make the same number of batches, so the
    function may use collectives.

    Args:
        source: The images; must be the same on all processes.
        view: Decodes and crops an image.
        function: Maps (weights, images [B, ...]) to arrays [B, ...] by name. It is jitted here.
        weights: First argument of `function`, already on the mesh.
        mesh: A mesh over all devices.
        batch_size: Global batch size, divisible by the number of devices. The last batch is
            padded with black images.
        positions: Positions in the source in the requested order, the same on all processes;
            NO_IMAGE stands for a black row without a result. None reads all images in order.
        start: Number of leading entries of `positions` to skip, to resume a pass.
        max_errors: The pass ends with an error when there are more than this; None sets no limit.
        num_threads: Number of threads that read and decode.
        num_workers: Number of worker processes that share them; 0: none. With them the source
            must be picklable.

    Attributes:
        row_shapes: Shape of one row of every output, by name.
        speed: Timing of the results yielded so far.

    Raises:
        ValueError: If the batch size is not divisible by the number of devices.
        TooManyBadImagesError: While iterating, if this process has more than `max_errors` errors.
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
        num_workers: int = 0,
    ):
        sharding.check_batch(batch_size=batch_size, group_size=None, mesh=mesh)
        self._source, self._view, self._weights, self._mesh = source, view, weights, mesh
        self._order = (range(len(source)) if positions is None else positions)[start:]
        self._batch_size, self._rows = batch_size, batch_size // jax.process_count()
        self._first = jax.process_index() * self._rows  # row of a global batch
        self._max_errors, self._num_threads = max_errors, num_threads
        self._num_workers = num_workers
        self._errors: dict[int, str] = {}
        self._found = 0  # errors yielded so far
        by_rows = sharding.by_example(mesh)
        black = view.empty
        images = jax.ShapeDtypeStruct((batch_size, *black.shape), black.dtype, sharding=by_rows)
        # Lowered with the sharding of the rows and compiled here, so that the time of the first
        # batch says something about the network and not about the compiler.
        self._step, self.row_shapes = _compiled(function, weights, images)
        self.speed = Speed(0, 0.0, 0.0, 0.0)
        self._network_seconds, self._logged = 0.0, 0

    def at(self, positions: Sequence[int] | np.ndarray) -> "Predictions":
        """Returns itself for another pass, at other positions; errors and speed are counted on."""
        self._order = positions
        return self

    def __iter__(self) -> Iterator[PredictedRows]:
        """Yields the results of one batch at a time, while the next batch is being computed."""
        begin, before = time.perf_counter() - self.speed.seconds, self.speed.reading
        batches, own_rows = DeviceBatches(self._batches(), self._mesh), self._own_rows()
        for number, outputs in enumerate(one_behind(self._run(batches))):
            asked = time.perf_counter()
            values = {name: sharding.local_rows(array) for name, array in outputs.items()}
            self._network_seconds += time.perf_counter() - asked
            own = range(number * self._rows, (number + 1) * self._rows)
            rows = self._rows_of(np.array([own_rows.position(row) for row in own]), values)
            images = self.speed.images + len(rows.positions)
            waits = before + batches.seconds_waited, self._network_seconds
            self.speed = Speed(images, time.perf_counter() - begin, *waits)
            self._found += len(rows.errors)
            if self._max_errors is not None and self._found > self._max_errors:
                position, error = list(rows.errors.items())[-1]
                raise TooManyBadImagesError(
                    f"{self._found} images cannot be read or decoded (limit {self._max_errors}), "
                    f"the last one: {self._source.names[position]}: {error}"
                )
            yield rows
            # Again after the caller has used the rows: the time between is its own work, see
            # `Speed.limit`.
            self.speed = self.speed._replace(seconds=time.perf_counter() - begin)

    def _run(self, batches: DeviceBatches) -> Iterator[dict[str, Array]]:
        for batch in batches:
            asked = time.perf_counter()
            outputs = self._step(self._weights, batch["image"])
            self._network_seconds += time.perf_counter() - asked
            yield outputs

    def _batches(self) -> Iterator[dict[str, np.ndarray]]:
        """Yields this process's rows of every global batch."""
        batches = math.ceil(len(self._order) / self._batch_size)
        if not batches:
            return
        # Small chunks let the threads share a batch evenly; single images would each pay Grain's
        # cost of passing an element to the iterator.
        size = math.gcd(self._rows, _MAX_CHUNK)
        rows = grain.MapDataset.range(batches * self._rows).map(self._own_rows().load)
        chunks = read_ahead.iterate(
            rows.batch(size, batch_fn=_chunk),
            num_threads=self._num_threads,
            num_workers=self._num_workers,
            # One batch, and one chunk in each thread.
            prefetch=self._rows // size + self._num_threads,
            element_bytes=size * self._view.empty.nbytes,
        )
        empty = self._view.empty
        for _ in range(batches):
            images = np.empty((self._rows, *empty.shape), empty.dtype)
            # Copied one by one, so that the shared memory of each chunk is free at once.
            for first in range(0, self._rows, size):
                chunk = next(chunks)
                images[first : first + size] = chunk.images
                self._errors.update(chunk.errors)
            yield {"image": images}

    def _own_rows(self) -> "_OwnRows":
        return _OwnRows(
            self._source, self._view, self._order, self._batch_size, self._rows, self._first
        )

    def _rows_of(self, positions: np.ndarray, values: dict[str, np.ndarray]) -> PredictedRows:
        """Drops padding rows and fills the rows of errors with nan or 0."""
        kept = positions != NO_IMAGE
        positions = positions[kept]
        errors = {p: self._errors[p] for p in positions.tolist() if p in self._errors}
        for position, error in list(errors.items())[: _LOGGED_ERRORS - self._logged]:
            logging.warning("%s: %s", one_line(self._source.names[position]), error)
            self._logged += 1
        bad = np.isin(positions, list(errors))
        outputs = {}
        for name, array in values.items():
            outputs[name] = array[kept]  # boolean indexing copies, so this array is writable
            outputs[name][bad] = np.nan if jnp.issubdtype(array.dtype, jnp.floating) else 0
        return PredictedRows(positions, outputs, errors)
