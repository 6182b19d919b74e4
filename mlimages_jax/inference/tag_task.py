# SPDX-License-Identifier: BSD-3-Clause
"""The task behind configs/classify.py: tags of images, to a file, in the order of the input."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from etils import epath
from jax.experimental import multihost_utils

from mlimages_jax.checkpoints import manager, saved_model
from mlimages_jax.checkpoints.weights_digest import weights_digest
from mlimages_jax.data.images.views import EvaluationView
from mlimages_jax.data.pipeline import TooManyBadImagesError
from mlimages_jax.distributed import preemption, sharding, workdir_lock
from mlimages_jax.files import paths
from mlimages_jax.inference import batch_predict, pretrained, tag_files
from mlimages_jax.inference.batch_predict import Predictions
from mlimages_jax.inference.image_source import ImageSource, open_images
from mlimages_jax.inference.network_outputs import network_outputs
from mlimages_jax.inference.pretrained import Model, ModelError
from mlimages_jax.inference.tag_files import TagFile, TagFileError
from mlimages_jax.inference.tagging import Tag, ThresholdError
from mlimages_jax.labels.hierarchy import Hierarchy, HierarchyError
from mlimages_jax.models.architecture import UnknownArchitectureError
from mlimages_jax.settings import Classify, build, checked

_SECONDS = 30  # between two lines of the log


class Summary(NamedTuple):
    """What the file holds.

    Attributes:
        output: the file.
        images: rows in it.
        errors: of them, images that could not be read.
    """

    output: Path
    images: int
    errors: int


def classify(config: Classify, workdir: epath.PathLike) -> Summary:
    """Tags images as configured, or goes on with a command that stopped.

    Args:
        config: Settings of the task.
        workdir: holds the file where `config.output` is empty.

    Raises:
        FileNotFoundError: no images, no checkpoint, or no file of thresholds or classes.
        ConfigError: a value that cannot be; a checkpoint without names or loss; an output that is
            there already, or begun with other values.
        ImageSourceError, DataSetError: the input holds no images, or is used wrongly.
        TooManyBadImagesError: over `config.max_errors`.
    """
    try:
        config = checked(config)
        output, file_format = _output(config, workdir)
        with contextlib.ExitStack() as stack:
            if not config.output:
                stack.enter_context(workdir_lock.held(workdir, task="classify"))
            name = f"{output.name}.lock"
            stack.enter_context(workdir_lock.held(output.parent, task="classify", name=name))
            return _classify(config, output, file_format)
    except (
        HierarchyError, ModelError, TagFileError, ThresholdError, UnknownArchitectureError,
    ) as error:  # fmt: skip
        raise build.ConfigError(str(error)) from error


def _classify(config: Classify, output: Path, file_format: str) -> Summary:
    """As `classify`, with a file that is held."""
    source = _images(config)
    mesh = sharding.make_mesh()
    try:
        batch_size = batch_predict.fitting_batch(config.batch_size, images=len(source), mesh=mesh)
    except ValueError as error:
        raise build.ConfigError(f"config.{error}") from error
    folder = _agreed_step(manager.resolve(config.checkpoint))
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
        rows, errors = _agreed(file.keep(multiple_of=batch_size) if file else (0, 0))
        if rows:
            logging.info("going on behind %d of %d images", rows, len(source))
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
    multihost_utils.sync_global_devices("the tags are complete")
    _log_speed(predictions)
    logging.info("%s: tags of %d images, %d errors", output, len(source), errors)
    return Summary(output, len(source), errors)


def _lines(
    predictions: Predictions,
    source: ImageSource,
    tags_of: Callable[[np.ndarray], list[list[Tag]]],
) -> Iterator[list[str]]:
    """Yields the lines of every global batch, in order and the same on all processes."""
    told = time.monotonic()
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
        yield _of_all_processes(own)
        if time.monotonic() > told + _SECONDS:
            told = time.monotonic()
            done = predictions.speed.images * jax.process_count()
            logging.info("%d of %d images", done, len(source))


def _images(config: Classify) -> ImageSource:
    """What is to be tagged.

    Raises:
        ConfigError: when the processes do not see the same.
    """
    source = open_images(
        config.input, split=config.split or None, images_root=config.images_root or None
    )
    if len(set(_of_all_processes([source.digest]))) > 1:
        raise build.ConfigError(
            f"the processes find different images in {config.input}: put them where all "
            "machines see the same files"
        )
    return source


def _output(config: Classify, workdir: epath.PathLike) -> tuple[Path, str]:
    """The file and its format.

    Raises:
        ConfigError: when it is none of a disk.
        TagFileError: when nothing says its format.
    """
    if config.output:
        path = Path(paths.expanded(config.output))
    else:
        path = (
            Path(paths.expanded(workdir)) / f"tags{tag_files.ending_of(config.format or 'jsonl')}"
        )
    if "://" in os.fspath(config.output or workdir):
        raise build.ConfigError(
            f"output={config.output or workdir}: tags are written to a disk; give a file of one, "
            "and copy it when it is complete"
        )
    return path, config.format or tag_files.format_of(path)


def _load(config: Classify, folder: epath.Path, *, place: jax.sharding.Sharding) -> Model:
    return pretrained.load(
        folder,
        dictionary=config.dictionary or None,
        image_size=config.view.size or None,
        dtype=config.dtype,
        protocol=config.view.protocol or None,
        loss=config.loss or None,
        place=place,
    )


def _tagger(config: Classify, model: Model) -> Callable[[np.ndarray], list[list[Tag]]]:
    """From logits to tags."""
    return model.tagger(
        top_k=config.top_k or None,
        threshold=config.threshold or None,
        thresholds=config.thresholds or None,
        consistent=config.consistent,
    )


def _about(
    config: Classify, model: Model, source: ImageSource, *, view: EvaluationView
) -> dict[str, Any]:
    """What decides the rows, as JSON values."""
    names = ("top_k", "threshold", "consistent", "dtype")
    thresholds = Path(config.thresholds).read_bytes() if config.thresholds else b""
    return {
        "weights": weights_digest({"params": model.params, "batch_stats": model.batch_stats}),
        "loss": [model.loss, model.positive_weight],
        "dictionary": _digest_of(model.hierarchy),
        "images": source.digest,
        "view": [view.protocol, view.size, view.exif_orientation],
        "thresholds": hashlib.sha256(thresholds).hexdigest(),
        **{name: getattr(config, name) for name in names},
    }


def _digest_of(hierarchy: Hierarchy | None) -> str:
    """Of names and parents, wherever they were read."""
    if hierarchy is None:
        return ""
    parts = [hierarchy.ids, hierarchy.names, hierarchy.parents.tolist()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _agreed_step(folder: epath.Path) -> epath.Path:
    """Process 0's choice of a step, where the others may see another one as the newest."""
    return folder.parent / str(_agreed((int(folder.name),))[0])


def _agreed(numbers: Sequence[int]) -> list[int]:
    """Process 0's numbers."""
    return np.asarray(multihost_utils.broadcast_one_to_all(np.array(numbers, np.int64))).tolist()


def _of_all_processes(lines: list[str]) -> list[str]:
    """The lines of all processes, in their order; no line holds a line end."""
    if jax.process_count() == 1:
        return lines
    text = np.frombuffer("\n".join(lines).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.array(len(text))).tolist()
    filled = np.zeros(1 << max(lengths).bit_length(), np.uint8)  # few sizes: each is compiled
    filled[: len(text)] = text
    texts = multihost_utils.process_allgather(filled)
    parts = [row[:length].tobytes().decode() for row, length in zip(texts, lengths, strict=True)]
    return [line for part in parts if part for line in part.split("\n")]


def _log_speed(predictions: Predictions) -> None:
    """Says how fast this process was, and what held it up."""
    speed = predictions.speed
    if speed.images:
        logging.info(
            "%.1f images/s; waiting for images %.0f%%, for the network %.0f%% of the time",
            speed.images / speed.seconds,
            100 * speed.reading / speed.seconds,
            100 * speed.network / speed.seconds,
        )
