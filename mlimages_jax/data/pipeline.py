# SPDX-License-Identifier: BSD-3-Clause
"""Makes the NumPy batches of a process from records, with Grain.

The order of the data is a function of (seed, global batch size, step), see `order`. So the global
batch of a step is the same for any number of processes, and training resumes at any step without
iterator state.

Batches are made by threads or by worker processes, see `read_ahead`. What goes wrong with an image
travels with its batch, so that it is counted where the batch is used, in one place.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import grain
import jax
import numpy as np
from absl import logging
from etils import epath
from jax.sharding import Mesh

from mlimages_jax.data import NO_LABEL, read_ahead
from mlimages_jax.data.images import jpeg
from mlimages_jax.data.images.decode import BadImage
from mlimages_jax.data.images.views import EvaluationView, TrainingView
from mlimages_jax.data.order import ProcessRows, seed_of
from mlimages_jax.data.records import (
    DamagedRecordError,
    RandomAccess,
    Record,
    padded_labels,
    record_at,
)
from mlimages_jax.distributed import sharding
from mlimages_jax.files.escaping import one_line
from mlimages_jax.files.remote import append_line, is_remote

NumpyBatch = dict[str, np.ndarray]


class TooManyBadImagesError(RuntimeError):
    """Raised when more images than allowed cannot be read or decoded."""


class Problem(NamedTuple):
    """Why an image has no row in a batch."""

    name: str
    reason: str
    message: str


class BadImages:
    """Counts and lists images that cannot be decoded.

    Args:
        path: A tab-separated file (name, reason, message) to append to; None only counts. On
            object storage each of several processes has its own file, bad_images_0.tsv and so on.
        limit: The run ends when there are more distinct images than this.
    """

    def __init__(self, path: epath.PathLike | None = None, *, limit: int = 1000):
        self.path = epath.Path(path) if path else None
        if self.path and is_remote(self.path) and jax.process_count() > 1:
            # An object cannot be appended to, only replaced: processes with one object would lose
            # lines.
            self.path = self.path.with_stem(f"{self.path.stem}_{jax.process_index()}")
        self.limit = limit
        self.names: set[str] = set()

    def add(self, problem: Problem) -> None:
        """Records an image once.

        Raises:
            TooManyBadImagesError: If there are more than `limit` images.
        """
        if problem.name in self.names:
            return
        self.names.add(problem.name)
        cells = [one_line(cell) for cell in problem]
        logging.warning("skipped image %s: %s: %s", *cells)
        if self.path:
            append_line(self.path, "\t".join(cells))
        if len(self.names) > self.limit:
            raise TooManyBadImagesError(
                f"{len(self.names)} images could not be decoded (limit {self.limit}); "
                f"see {self.path or 'the log'}; mlimages data check lists all "
                "damage in a set: get those files again, or build it again"
            )


def training_batches(
    streams: Sequence[RandomAccess],
    view: TrainingView,
    *,
    batch_size: int,
    num_streams: int = 1,
    max_labels: int,
    seed: int,
    start_step: int = 0,
    first_image: int = 0,
    bad_images: BadImages | None = None,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 4,
    num_workers: int = 0,
    prefetch: int = 4,
) -> Iterator[NumpyBatch]:
    """Yields endless training batches of one process, starting at any step.

    Args:
        streams: Serialised records of the streams that this process has rows of, see
            `ProcessRows.streams`; a single stream of all records is the order `global`. Streams of
            different lengths have their own epochs, with each image once per epoch.
        view: Decodes and crops the images.
        batch_size: Global batch size; the batches have batch_size / process_count rows.
        num_streams: Number of streams of the job, each of which fills an equal part of a batch.
        max_labels: Maximum number of labels per image, L.
        seed: Seed of order and crops; every epoch is shuffled differently.
        start_step: First batch to yield, counted from `first_image`.
        first_image: Number of images already used in batches of another size, equally many from
            all streams.
        bad_images: Records images that cannot be decoded; their rows are black and not in the mask.
        process_index: Index of this process.
        process_count: Number of processes.
        num_threads: Number of threads that read and decode, each a full batch at a time.
        num_workers: Number of worker processes that share the threads; 0: they are in this process.
        prefetch: Number of batches to keep ready, at least one per thread.

    Raises:
        SharedMemoryError: The batches of worker processes do not fit into shared memory.
        ValueError: If the batch size is not divisible by the processes or the streams, a stream is
            empty, or their number differs from `ProcessRows.streams`.
    """
    rows = ProcessRows(
        batch_size=batch_size,
        num_streams=num_streams,
        process_index=process_index,
        process_count=process_count,
        first_image=first_image + start_step * batch_size,
    )
    if len(streams) != len(rows.streams):
        raise ValueError(f"got {len(streams)} streams for {rows.streams} of {num_streams}")
    if not all(map(len, streams)):
        raise ValueError("the training split has no records")
    if not jpeg.is_compiled():
        logging.info("images are decoded completely, which is slower: see data/images/jpeg.py")

    def empty() -> np.ndarray:  # made only for images that cannot be read
        return np.zeros((view.size, view.size, 3), np.uint8)

    def load(record: Record | Problem, rng: np.random.Generator) -> _Row:
        if isinstance(record, Problem):
            return _empty_row(empty(), max_labels, record)
        return _row(record, lambda: view(record.jpeg, rng), empty=empty, max_labels=max_labels)

    shuffled = [
        grain.MapDataset.source(_Parsed(records))
        # Shuffled before it is repeated: each image then comes once per epoch, and repeat gives
        # every epoch a seed of its own. The generators of random_map depend on seed and position,
        # not on threads or workers.
        .seed(seed_of(number, seed))
        .shuffle()
        .repeat()
        .random_map(load)
        for number, records in zip(rows.streams, streams, strict=True)
    ]
    # Batched here and not after the conversion to an iterator: then 435 us an image instead of 40
    # would go into passing single images from Grain's threads.
    dataset = grain.MapDataset.select_from_datasets(shuffled, rows).batch(
        len(rows.in_batch), batch_fn=_batch
    )
    batches = read_ahead.iterate(
        dataset,
        num_threads=num_threads,
        num_workers=num_workers,
        prefetch=prefetch,
        element_bytes=len(rows.in_batch) * view.size**2 * 3,
    )
    return _counted(batches, bad_images or BadImages())


def evaluation_batches(
    records: RandomAccess,
    view: EvaluationView,
    *,
    batch_size: int,
    max_labels: int,
    relabel: Callable[[Record], Record] | None = None,
    bad_images: BadImages | None = None,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 4,
    num_workers: int = 0,
    prefetch: int = 4,
) -> Iterator[NumpyBatch]:
    """Yields one pass over all records in order; padding of the last batch is not in the mask.

    Arguments as for `training_batches`; `relabel` replaces the labels of a record. Every process
    gets the same number of batches.
    """
    parsed = _Parsed(records)

    def load(index: int) -> _Row:
        record = parsed[index] if index < len(records) else None
        if record is None or isinstance(record, Problem):
            return _empty_row(view.empty, max_labels, record)
        record = relabel(record) if relabel else record
        return _row(
            record,
            lambda: view(record.jpeg),
            empty=lambda: view.empty,
            max_labels=max_labels,
        )

    # All processes must run the same number of evaluation steps, as these are collective programs.
    filled = math.ceil(len(records) / batch_size) * batch_size
    local = batch_size // process_count
    # Processes take these small batches in turn, so the rows of a global batch are consecutive
    # records.
    dataset = grain.MapDataset.range(filled).map(load).batch(local, batch_fn=_batch)
    batches = read_ahead.iterate(
        dataset[process_index::process_count],
        num_threads=num_threads,
        num_workers=num_workers,
        prefetch=prefetch,
        element_bytes=local * view.empty.nbytes,
    )
    return _counted(batches, bad_images or BadImages())


def abstract_batch(
    image_size: int, *, batch_size: int, max_labels: int, mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes, dtypes and shardings of a global training batch, for compilation."""
    row = _empty_row(np.zeros((image_size, image_size, 3), np.uint8), max_labels).arrays
    by_rows = sharding.by_example(mesh)
    return {
        name: jax.ShapeDtypeStruct((batch_size, *value.shape), value.dtype, sharding=by_rows)
        for name, value in row.items()
    }


class _Row(NamedTuple):
    """A row of a batch, and why it is empty; None if it is not, or is padding."""

    arrays: NumpyBatch
    problem: Problem | None = None


class _Batch(NamedTuple):
    """The arrays of a batch, and the problems of its rows."""

    arrays: NumpyBatch
    problems: list[Problem]


class _Parsed:
    """Parsed records by position; a damaged record yields its problem, which keeps its position.

    Not None: Grain would treat that as a filtered-out element.
    """

    def __init__(self, records: RandomAccess):
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int, /) -> Record | Problem:
        try:
            return record_at(self._records, index)
        except DamagedRecordError as error:
            name = getattr(self._records, "name_of", "record {}".format)(index)
            return Problem(name, "damaged_record", str(error))


def _row(
    record: Record,
    read: Callable[[], np.ndarray],
    *,
    empty: Callable[[], np.ndarray],
    max_labels: int,
) -> _Row:
    try:
        image = read()
    except BadImage as error:
        problem = Problem(record.name, error.reason, str(error))
        return _empty_row(empty(), max_labels, problem)
    labels = padded_labels(record, max_labels=max_labels)
    return _Row({"image": image, "mask": np.array(True), **labels})


def _empty_row(empty: np.ndarray, max_labels: int, problem: Problem | None = None) -> _Row:
    arrays = {
        "image": empty,
        "mask": np.array(False),
        "labels": np.full(max_labels, NO_LABEL, np.int32),
        "confidences": np.zeros(max_labels, np.float32),
    }
    return _Row(arrays, problem)


def _batch(rows: Sequence[_Row]) -> _Batch:
    arrays = {name: np.stack([row.arrays[name] for row in rows]) for name in rows[0].arrays}
    return _Batch(arrays, [row.problem for row in rows if row.problem])


def _counted(batches: Iterator[_Batch], bad_images: BadImages) -> Iterator[NumpyBatch]:
    for batch in batches:
        for problem in batch.problems:
            bad_images.add(problem)
        yield batch.arrays
