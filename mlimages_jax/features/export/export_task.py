# SPDX-License-Identifier: BSD-3-Clause
"""The task of configs/export_features.py: writes features of images to files, in input order."""

import functools
import hashlib
import math
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh

from mlimages_jax.checkpoints import places, saved_model
from mlimages_jax.checkpoints.saved_model import SavedModel
from mlimages_jax.checkpoints.weights_digest import weights_digest
from mlimages_jax.data.images.views import EvaluationView
from mlimages_jax.distributed import (
    collectives,
    preemption,
    sharding,
    workdir_lock,
)
from mlimages_jax.features.export import find_components
from mlimages_jax.features.export.components import Components
from mlimages_jax.features.export.feature_files import FeatureWriter, read_manifest
from mlimages_jax.features.export.feature_formats import Layout, Part
from mlimages_jax.files import paths
from mlimages_jax.files.remote import is_remote
from mlimages_jax.inference import batch_predict
from mlimages_jax.inference.batch_predict import (
    NO_IMAGE,
    PredictedRows,
    Predictions,
    Speed,
)
from mlimages_jax.inference.image_source import ImageSource
from mlimages_jax.inference.network_outputs import network_outputs, output_widths
from mlimages_jax.models import architecture
from mlimages_jax.models.resnet import ResNet
from mlimages_jax.settings import Export, build, checked

_LIMITS = {"reading": "reading and decoding", "network": "the network", "results": "writing"}


def export(config: Export, workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Exports as configured, or resumes an export that stopped.

    Every process computes entire parts, so that the files are the same for any number of processes.

    Args:
        config: Settings of the task.
        workdir: Folder of the features, shared by all processes.

    Returns:
        The manifest, features.json.

    Raises:
        FileNotFoundError: If there are no images or no checkpoint.
        ConfigError: If a value is invalid, or the network's outputs cannot be stored.
        ImageSourceError, DataSetError: If the input contains no images or is misused.
        FeatureFilesError: If the workdir contains other features.
        TooManyBadImagesError: If there are more than `config.max_errors` errors.
    """
    config = checked(config)
    workdir = paths.expanded(workdir)
    if is_remote(workdir):
        return _export(config, workdir)  # FeatureWriter refuses it with a message
    with workdir_lock.held(workdir, task="export_features"):
        return _export(config, workdir)


def _export(config: Export, workdir: str) -> dict[str, Any]:
    """Runs `export` while the workdir is locked."""
    mesh = sharding.make_mesh()
    source = batch_predict.open_shared(config)
    saved, model = _load(config, mesh)
    view = saved.view(config.view, exif_orientation=config.exif_orientation, built=source.built)
    layout = _layout(config, model, source)
    taken = find_components.of_another_export(config, saved, width=model.stage_widths[-1])
    about = _about(config, saved, model, source, view) | _about_components(config, taken)
    writer = FeatureWriter(workdir, layout, config.format, about)
    complete, done = _begin(writer, layout)
    if complete:
        logging.info("%s already contains these features", workdir)
        return read_manifest(workdir)
    predict = functools.partial(_predictions, config, source, view, model, saved, mesh)
    components = None
    if config.components:
        components = find_components.kept_in(
            Path(workdir), taken, config, functools.partial(predict, (find_components.OUTPUT,)),
            images=len(source), started=bool(done.any()),
        )  # fmt: skip
    batch_size = batch_predict.fitting_batch(config.batch_size, images=len(source), mesh=mesh)
    left = order_of_parts(layout, np.flatnonzero(~done), batch_size=batch_size)
    predictions = predict(config.outputs, left)
    write_parts(predictions, layout, source, writer, components)
    collectives.barrier("all parts are stored")
    speed = _log_speed(predictions.speed)
    if jax.process_index() == 0:
        writer.finish(speed=speed, components=components.digest if components else None)
    collectives.barrier("the export is complete")
    return read_manifest(workdir)


def _predictions(
    config: Export,
    source: ImageSource,
    view: EvaluationView,
    model: ResNet,
    saved: SavedModel,
    mesh: Mesh,
    names: tuple[str, ...],
    positions: np.ndarray,
) -> Predictions:
    """Returns named outputs of the images at some positions, as configured."""
    return Predictions(
        source,
        view,
        functools.partial(network_outputs, model=model, names=names),
        saved.weights,
        mesh=mesh,
        batch_size=batch_predict.fitting_batch(config.batch_size, images=len(source), mesh=mesh),
        positions=positions,
        max_errors=None if config.max_errors < 0 else config.max_errors,
        num_threads=config.num_threads,
    )


def order_of_parts(layout: Layout, numbers: np.ndarray, *, batch_size: int) -> np.ndarray:
    """Returns positions, int64 [n], in the order for `Predictions`; parts belong to processes.

    Every part starts with a new batch of its process. The contents of a batch, and so the rounding
    of its outputs, then do not depend on which parts were already done.
    """
    count = jax.process_count()
    rows = batch_size // count
    longest = max((len(numbers[i::count]) for i in range(count)), default=0)
    order = np.full((longest, math.ceil(layout.rows_per_part / rows), count, rows), NO_IMAGE)
    for i, number in enumerate(numbers.tolist()):
        positions = layout.positions(number)
        filled = np.full((order.shape[1], rows), NO_IMAGE)
        filled.reshape(-1)[: len(positions)] = positions
        order[i // count, :, i % count] = filled
    batches = order.reshape(-1, count * rows)
    return batches[(batches != NO_IMAGE).any(1)].reshape(-1)


def write_parts(
    predictions: Predictions,
    layout: Layout,
    source: ImageSource,
    writer: FeatureWriter,
    components: Components | None = None,
) -> None:
    """Passes each part to the writer once its last row is computed; returns when all are stored."""
    collected: list[PredictedRows] = []
    for rows in predictions:
        if not len(rows.positions):
            continue  # only other processes have images left
        collected.append(rows)
        number = int(rows.positions[0]) // layout.rows_per_part
        if rows.positions[-1] == layout.positions(number)[-1]:
            writer.write(_part(number, collected, layout, source, components))
            collected = []
            speed = predictions.speed
            logging.info(
                "part %d of %d  %.1f images/s  waiting for images %.0f%%",
                number + 1, layout.parts, speed.images / speed.seconds,
                100 * speed.reading / speed.seconds,
            )  # fmt: skip
        preemption.check()
    writer.wait()


def _part(
    number: int,
    collected: list[PredictedRows],
    layout: Layout,
    source: ImageSource,
    components: Components | None,
) -> Part:
    """Converts rows to the form in which they are stored.

    Raises:
        ConfigError: If a number is infinite, or becomes so in the stored dtype.
    """
    errors = {position: error for rows in collected for position, error in rows.errors.items()}
    positions = layout.positions(number)
    valid = np.array([position not in errors for position in positions])
    outputs = {}
    for name in layout.widths:
        # What float16 cannot hold becomes infinite, which is reported below with the name of the
        # output.
        with np.errstate(over="ignore"):
            values = np.concatenate([rows.outputs[name] for rows in collected])
            if components and name == find_components.OUTPUT:
                values = components.project(values)
            outputs[name] = values.astype(layout.dtype)
        if not np.isfinite(outputs[name][valid]).all():
            stored = "" if layout.dtype == "float32" else ": try --config.stored_dtype=float32"
            raise build.ConfigError(
                f"{name} of images {positions.start} to {positions.stop - 1} has values that "
                f"are not finite as {layout.dtype}{stored or ': the checkpoint is damaged'}"
            )
    return Part(
        number,
        names=[source.names[position] for position in positions],
        labels=[source.labels(position) for position in positions],
        errors=[errors.get(position, "") for position in positions],
        outputs=outputs,
    )


def _load(config: Export, mesh: Mesh) -> tuple[SavedModel, ResNet]:
    """Loads the checkpoint that process 0 chooses, replicated on all devices.

    Raises:
        ConfigError: If its parameters do not belong to one of our networks.
    """
    folder = places.local(config.checkpoint)
    saved = saved_model.read(folder, sharding=sharding.replicated(mesh), ema=config.ema)
    dtype = build.compute_dtype(config.dtype)
    try:
        return saved, architecture.network_of(saved.weights["params"], dtype=dtype)
    except architecture.UnknownArchitectureError as error:
        raise build.ConfigError(f"{folder}: {error}") from error


def _layout(config: Export, model: ResNet, source: ImageSource) -> Layout:
    """Returns the layout of the stored numbers.

    Raises:
        ConfigError: If the network does not have a requested output.
    """
    widths = output_widths(model)
    unknown = [name for name in config.outputs if name not in widths]
    if unknown:
        raise build.ConfigError(f"outputs={config.outputs}: name some of {', '.join(widths)}")
    find_components.check_settings(config, width=widths[find_components.OUTPUT])
    if config.components:
        widths[find_components.OUTPUT] = config.components
    return Layout(
        images=len(source),
        rows_per_part=config.rows_per_part,
        widths={name: widths[name] for name in config.outputs},
        dtype=config.stored_dtype,
        labels=source.has_labels,
    )


def _about(
    config: Export, saved: SavedModel, model: ResNet, source: ImageSource, view: EvaluationView
) -> dict[str, Any]:
    """Returns everything that the numbers depend on, as JSON values."""
    return {
        "input": {
            "path": config.input,
            "split": config.split,
            "images_root": config.images_root,
        },
        "input_digest": source.digest,
        "labels_digest": _labels_digest(source),
        "checkpoint": {
            "folder": os.fspath(saved.where),
            "averaged": config.ema,  # the key of version 0.1
            "weights": weights_digest(saved.weights),
        },
        "model": {
            "num_classes": model.num_classes,
            "stage_sizes": list(model.stage_sizes),
            "stage_widths": list(model.stage_widths),
            "dtype": config.dtype,
        },
        "view": {
            "size": view.size,
            "protocol": view.name,  # the key of version 0.1
            "exif_orientation": view.exif_orientation,
        },
    }


def _about_components(config: Export, taken: Components | None) -> dict[str, Any]:
    """Returns which components are stored; exports without them say nothing, as before."""
    if not config.components:
        return {}
    chosen = {"of": taken.digest} if taken else {"images": config.components_images}
    return {"components": {"number": config.components, **chosen}}


def _labels_digest(source: ImageSource) -> str:
    """Digests the labels stored next to the numbers; a built set's own digest includes them."""
    if source.built or not source.has_labels:
        return ""
    digest = hashlib.sha256()
    for position in range(len(source)):
        digest.update(f"{source.labels(position)}\n".encode())
    return digest.hexdigest()


def _begin(writer: FeatureWriter, layout: Layout) -> tuple[bool, np.ndarray]:
    """Prepares the folder; returns whether the export is complete, and which parts are done."""
    # By process 0 for all: its answer decides how many batches there are, the same everywhere.
    complete = collectives.of_process_0(jax.process_index() == 0 and writer.begin())
    done = np.array(collectives.of_process_0(writer.done().tolist()), bool)
    if done.any():
        logging.info("resuming: %d of %d parts are done", done.sum(), layout.parts)
    return complete, done


def _log_speed(own: Speed) -> dict[str, Any]:
    """Logs the speed of all processes and what limited it; returns it as JSON values."""
    table = collectives.gathered(np.array(own, np.float32))
    seconds, reading, network = table[:, 1:].mean(0).tolist()
    speed = Speed(int(table[:, 0].sum()), seconds, reading, network)
    if not speed.images:
        return {}  # all parts were already done
    values = {
        "images_per_second": speed.images / seconds,
        "waiting_for_images": reading / seconds,
        "waiting_for_network": network / seconds,
        "limit": speed.limit,
    }
    logging.info(
        "%d images in %.1f s, %.1f images/s; waiting for images %.0f%%, for the network "
        "%.0f%%: the limit was %s",
        speed.images, seconds, values["images_per_second"], 100 * reading / seconds,
        100 * network / seconds, _LIMITS[speed.limit],
    )  # fmt: skip
    return values
