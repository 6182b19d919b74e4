# SPDX-License-Identifier: BSD-3-Clause
"""The task of configs/classify.py: writes the tags of images to a file, in input order."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from etils import epath

from mlimages_jax.checkpoints import manager, saved_model, step_folders
from mlimages_jax.checkpoints.weights_digest import weights_digest
from mlimages_jax.data.images.views import EvaluationView
from mlimages_jax.data.pipeline import TooManyBadImagesError
from mlimages_jax.distributed import (
    collectives,
    preemption,
    sharding,
    workdir_lock,
)
from mlimages_jax.files import paths
from mlimages_jax.files.remote import is_remote
from mlimages_jax.inference import batch_predict, chosen_thresholds, pretrained, tag_files
from mlimages_jax.inference.batch_predict import Predictions
from mlimages_jax.inference.image_source import ImageSource
from mlimages_jax.inference.network_outputs import network_outputs
from mlimages_jax.inference.pretrained import Model, ModelError
from mlimages_jax.inference.tag_files import TagFile, TagFileError
from mlimages_jax.inference.tagging import Tag, ThresholdError
from mlimages_jax.labels.hierarchy import Hierarchy, HierarchyError
from mlimages_jax.models.architecture import UnknownArchitectureError
from mlimages_jax.settings import Classify, build, checked

_LOG_SECONDS = 30  # between two progress lines


class Summary(NamedTuple):
    """Contents of the file.

    Attributes:
        output: Path of the file.
        images: Number of images in it.
        errors: Number of these images that could not be read.
    """

    output: Path
    images: int
    errors: int


def classify(config: Classify, workdir: epath.PathLike) -> Summary:
    """Tags images as configured, or resumes a command that stopped.

    Args:
        config: Settings of the task.
        workdir: Folder of the file if `config.output` is empty.

    Raises:
        FileNotFoundError: If images, checkpoint, thresholds or class list are missing.
        ConfigError: If a value is invalid, the checkpoint lacks class names or its loss, or the
            output already exists or was started with other values.
        ImageSourceError, DataSetError: If the input contains no images or is misused.
        TooManyBadImagesError: If there are more than `config.max_errors` errors.
    """
    try:
        config = checked(config)
        output, file_format = _output(config, workdir)
        with contextlib.ExitStack() as stack:
            if not config.output:
                stack.enter_context(workdir_lock.held(workdir, task="classify"))
            name = f"{output.name}.lock"
            # The output has a lock too: it may be in another folder, which two workdirs can name.
            stack.enter_context(workdir_lock.held(output.parent, task="classify", name=name))
            return _classify(config, output, file_format)
    except (
        HierarchyError, ModelError, TagFileError, ThresholdError, UnknownArchitectureError,
    ) as error:  # fmt: skip
        raise build.ConfigError(str(error)) from error


def _classify(config: Classify, output: Path, file_format: str) -> Summary:
    """Runs `classify` while the output file is locked."""
    source = batch_predict.open_shared(config)
    mesh = sharding.make_mesh()
    batch_size = batch_predict.fitting_batch(config.batch_size, images=len(source), mesh=mesh)
    folder = step_folders.resolve_for_all(config.checkpoint)
    model = _load(config, folder, place=sharding.replicated(mesh))
    tags_of = _tagger(config, model)
    upright = saved_model.turns_upright(
        manager.config_of(folder), config.exif_orientation, built=source.built
    )
    view = dataclasses.replace(model.view, exif_orientation=upright)
    about = _about(config, model, source, view=view) | {"checkpoint": os.fspath(folder)}
    with contextlib.ExitStack() as stack:
        file = None
        if jax.process_index() == 0:
            file = stack.enter_context(TagFile(output, file_format, about))
        rows, errors = collectives.of_process_0(
            file.keep(multiple_of=batch_size) if file else (0, 0)
        )
        if rows:
            logging.info("resuming after %d of %d images", rows, len(source))
        predictions = Predictions(
            source,
            view,
            functools.partial(network_outputs, model=model.network, names=("logits",)),
            {"params": model.params, "batch_stats": model.batch_stats},
            mesh=mesh,
            batch_size=batch_size,
            start=rows,
            num_threads=config.num_threads,
        )
        for lines in _lines(predictions, source, tags_of):
            bad = [row for row in map(json.loads, lines) if "error" in row]
            errors += len(bad)
            # Every process sees all lines, so all of them raise together.
            if bad and 0 <= config.max_errors < errors:
                raise TooManyBadImagesError(
                    f"{errors} images cannot be read or decoded (max_errors {config.max_errors}),"
                    f" the last one: {bad[-1]['image']}: {bad[-1]['error']}"
                )
            if file:
                file.append(lines)
            preemption.check()
        if file:
            file.finish()
    # Without it the other processes could report success, and end, before the file exists.
    collectives.barrier("the tags are complete")
    _log_speed(predictions)
    logging.info("%s: tags of %d images, %d errors", output, len(source), errors)
    return Summary(output, len(source), errors)


def _lines(
    predictions: Predictions,
    source: ImageSource,
    tags_of: Callable[[np.ndarray], list[list[Tag]]],
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
            logging.info("%d of %d images", done, len(source))


def _output(config: Classify, workdir: epath.PathLike) -> tuple[Path, str]:
    """Returns the output file and its format.

    Raises:
        ConfigError: If the path is not on a local file system.
        TagFileError: If the format cannot be determined.
    """
    if config.output:
        path = Path(paths.expanded(config.output))
    else:
        path = (
            Path(paths.expanded(workdir)) / f"tags{tag_files.ending_of(config.format or 'jsonl')}"
        )
    if is_remote(config.output or workdir):
        raise build.ConfigError(
            f"output={config.output or workdir}: tags are written to a local disk; give a local "
            "path, and copy the file when it is complete"
        )
    return path, config.format or tag_files.format_of(path)


def _load(config: Classify, folder: epath.Path, *, place: jax.sharding.Sharding) -> Model:
    return pretrained.load(
        folder,
        classes=config.dictionary or None,
        image_size=config.view.size or None,
        dtype=config.dtype,
        view=config.view.protocol or None,
        loss=config.loss or None,
        sharding=place,
        # Without this, thresholds that are not used would be looked for, and announced.
        thresholds=chosen_thresholds.NONE if config.threshold or config.thresholds else None,
    )


def _tagger(config: Classify, model: Model) -> Callable[[np.ndarray], list[list[Tag]]]:
    """Returns the function from logits to tags."""
    return model.tagger(
        top_k=config.top_k or None,
        threshold=config.threshold or None,
        thresholds=config.thresholds or None,
        consistent=config.consistent,
    )


def _about(
    config: Classify, model: Model, source: ImageSource, *, view: EvaluationView
) -> dict[str, Any]:
    """Returns everything that determines the rows, as JSON values."""
    names = ("top_k", "threshold", "consistent", "dtype")
    thresholds = model.thresholds.values.tobytes() if model.thresholds else b""
    if config.thresholds not in ("", chosen_thresholds.NONE):
        thresholds = Path(config.thresholds).read_bytes()
    return {
        "weights": weights_digest({"params": model.params, "batch_stats": model.batch_stats}),
        "loss": [model.loss, model.positive_weight],
        "dictionary": _digest_of(model.hierarchy),
        "images": source.digest,
        "view": [view.name, view.size, view.exif_orientation],
        "thresholds": hashlib.sha256(thresholds).hexdigest(),
        **{name: getattr(config, name) for name in names},
    }


def _digest_of(hierarchy: Hierarchy | None) -> str:
    """Returns a digest of names and parents, independent of where they were read from."""
    if hierarchy is None:
        return ""
    parts = [hierarchy.ids, hierarchy.names, hierarchy.parents.tolist()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _log_speed(predictions: Predictions) -> None:
    """Logs how fast this process was, and what it waited for."""
    speed = predictions.speed
    if speed.images:
        logging.info(
            "%.1f images/s; waiting for images %.0f%%, for the network %.0f%% of the time",
            speed.images / speed.seconds,
            100 * speed.reading / speed.seconds,
            100 * speed.network / speed.seconds,
        )
