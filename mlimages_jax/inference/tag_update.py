# SPDX-License-Identifier: BSD-3-Clause
"""Brings a file of tags up to date with its images, on all devices of all processes."""

import contextlib
import functools
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh

from mlimages_jax.data.images.views import EvaluationView
from mlimages_jax.data.pipeline import TooManyBadImagesError
from mlimages_jax.distributed import collectives, preemption
from mlimages_jax.inference import batch_predict, tag_files
from mlimages_jax.inference.batch_predict import Predictions, Speed
from mlimages_jax.inference.image_source import ImageSource
from mlimages_jax.inference.model import Model
from mlimages_jax.inference.network_outputs import network_outputs
from mlimages_jax.inference.tag_record import TagRecord
from mlimages_jax.inference.tagging import Tag
from mlimages_jax.settings import Classify

CHECKPOINT = "checkpoint"  # no reason to refuse a file, because weights are compared

_LOG_SECONDS = 30  # between two progress lines
_RUNS = 1_000  # of positions, in a text that processes exchange


class Job(NamedTuple):
    """The settings, model and output that all updates of a file share.

    Attributes:
        config: Settings of the task.
        output: Path of the file.
        file_format: One of `tag_files.ENDINGS`.
        mesh: A mesh over all devices.
        model: The model.
        view: How images are resized and cropped.
        tags_of: Converts logits [n, C] to the tags of n images.
        about: Everything that determines the row of an image, as JSON values.
    """

    config: Classify
    output: Path
    file_format: str
    mesh: Mesh
    model: Model
    view: EvaluationView
    tags_of: Callable[[np.ndarray], list[list[Tag]]]
    about: dict[str, Any]


class Update(NamedTuple):
    """The result of an update of a file.

    Attributes:
        tagged: Number of images whose rows were not known.
        errors: Number of images in the file that could not be read.
        speed: Timing of the pass over these images; None if there were none.
    """

    tagged: int
    errors: int
    speed: Speed | None


def update_file(job: Job, source: ImageSource, *, overwrite: bool = False) -> Update:
    """Tags the images whose rows are not known, and writes the file.

    Args:
        job: What updates share.
        source: The images, the same on all processes.
        overwrite: See `TagRecord`.

    Raises:
        TagFileError: See `TagRecord`.
        TooManyBadImagesError: If there are more than `config.max_errors` errors.
        Preempted: If the command was asked to stop; the rows so far are kept.
    """
    config = job.config
    with contextlib.ExitStack() as stack:
        record = None
        if jax.process_index() == 0:
            record = TagRecord(
                job.output, job.file_format, job.about, shown=(CHECKPOINT,), overwrite=overwrite
            )
            stack.enter_context(record)
        todo, errors, extends = _shared_plan(record, source)
        known = len(source) - len(todo)
        if known and not config.watch:
            logging.info("%d of %d images are tagged already", known, len(source))
        predictions = _predictions(job, source, todo, extends=extends) if todo else None
        positions = iter(todo)
        made = _lines(predictions, source, job.tags_of, total=len(todo)) if predictions else ()
        for lines in made:
            rows = [json.loads(line) for line in lines]
            bad = [row for row in rows if "error" in row]
            errors += len(bad)
            # Every process sees all lines, so all of them raise together.
            if bad and 0 <= config.max_errors < errors:
                raise TooManyBadImagesError(
                    f"{errors} images cannot be read or decoded (max_errors {config.max_errors}),"
                    f" the last one: {bad[-1]['image']}: {bad[-1]['error']}"
                )
            if record:
                record.append(list(zip(itertools.islice(positions, len(rows)), rows, strict=True)))
            preemption.check()
        if record:
            record.finish()
    # Without it the other processes could report success, and end, before the file exists.
    collectives.barrier("the tags are complete")
    return Update(len(todo), errors, predictions.speed if predictions else None)


def _predictions(
    job: Job, source: ImageSource, positions: list[int], *, extends: bool
) -> Predictions:
    # A stopped run resumes with batches of the same size, for the same digits. For a few new images
    # such a batch would be wasteful; of powers of two there are few to compile.
    images = 1 << (len(positions) - 1).bit_length() if extends else len(source)
    size = batch_predict.fitting_batch(job.config.batch_size, images=images, mesh=job.mesh)
    return Predictions(
        source,
        job.view,
        functools.partial(network_outputs, model=job.model.network, names=("logits",)),
        {"params": job.model.params, "batch_stats": job.model.batch_stats},
        mesh=job.mesh,
        batch_size=size,
        positions=positions,
        num_threads=job.config.num_threads,
    )


def _shared_plan(record: TagRecord | None, source: ImageSource) -> tuple[list[int], int, bool]:
    """Returns the positions to tag, the known errors, and whether a finished file is extended."""
    todo, errors = record.plan(source) if record else ([], 0)
    parts: list[list[tuple[int, int]]] = list(_parts(todo))
    count, errors, extends = collectives.of_process_0(
        (len(parts), errors, bool(record and record.extends))
    )
    todo = []
    for number in range(count):
        for first, end in collectives.of_process_0(parts[number] if record else None) or ():
            todo += range(first, end)
    return todo, errors, extends


def _parts(positions: list[int]) -> Iterator[list[tuple[int, int]]]:
    """Yields increasing positions as (first, end) of each run of them, in short lists."""
    values = np.array(positions, np.int64)
    firsts = np.flatnonzero(np.diff(values, prepend=-2) != 1)  # -2, as -1 would continue at 0
    ends = [*firsts[1:].tolist(), len(values)]
    runs = [
        (positions[first], positions[end - 1] + 1)
        for first, end in zip(firsts.tolist(), ends, strict=False)
    ]
    for first in range(0, len(runs), _RUNS):
        yield runs[first : first + _RUNS]


def _lines(
    predictions: Predictions,
    source: ImageSource,
    tags_of: Callable[[np.ndarray], list[list[Tag]]],
    *,
    total: int,
) -> Iterator[list[str]]:
    """Yields the lines of every global batch, in order and identical on all processes."""
    last_log = time.monotonic()
    for rows in predictions:
        good = [position not in rows.errors for position in rows.positions.tolist()]
        tags = iter(tags_of(rows.outputs["logits"][good]))
        own = []
        for position in rows.positions.tolist():
            name = source.names[position]
            if position in rows.errors:
                own.append(tag_files.error_line(name, rows.errors[position]))
            else:
                own.append(tag_files.tags_line(name, next(tags)))
        yield collectives.gathered_lines(own)
        if time.monotonic() > last_log + _LOG_SECONDS:
            last_log = time.monotonic()
            done = predictions.speed.images * jax.process_count()
            logging.info("%d of %d images", done, total)
