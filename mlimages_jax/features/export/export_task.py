# SPDX-License-Identifier: BSD-3-Clause
"""The task of configs/export_features.py: writes features of images to files, in input order."""

import functools
import hashlib
import os
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh

from mlimages_jax.checkpoints import places, saved_model
from mlimages_jax.checkpoints.saved_model import SavedModel
from mlimages_jax.checkpoints.weights_digest import weights_digest
from mlimages_jax.data.images.views import EvaluationView
from mlimages_jax.distributed import collectives, sharding, workdir_lock
from mlimages_jax.features.export import elastic, find_components
from mlimages_jax.features.export.components import Components
from mlimages_jax.features.export.feature_formats import Layout
from mlimages_jax.features.export.feature_writer import FeatureWriter
from mlimages_jax.features.export.manifest import read_manifest
from mlimages_jax.features.export.parts import order_of_parts, write_parts
from mlimages_jax.files import paths
from mlimages_jax.inference import batch_predict
from mlimages_jax.inference.batch_predict import Predictions, Speed
from mlimages_jax.inference.image_source import ImageSource
from mlimages_jax.inference.network_outputs import network_outputs, output_widths
from mlimages_jax.models import architecture
from mlimages_jax.models.resnet import ResNet
from mlimages_jax.settings import Export, build, checked

_LIMITS = {"reading": "reading and decoding", "network": "the network", "results": "writing"}


def export(config: Export, workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Exports as configured, or resumes an export that stopped.

    Every process computes entire parts, so that the files are the same for any number of processes.
    The processes of an elastic export know nothing of each other, see `elastic`.

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
        ClaimError: If an elastic export cannot be divided in this workdir.
        TooManyBadImagesError: If there are more than `config.max_errors` errors.
    """
    config = checked(config)
    if config.elastic and jax.process_count() > 1:
        raise build.ConfigError(
            f"elastic=True: {jax.process_count()} processes were started as one job: start each on "
            "its own, without --coordinator_address and --num_processes"
        )
    workdir = paths.expanded(workdir)
    with workdir_lock.held(workdir, task="export_features", shared=config.elastic):
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
    predict = functools.partial(_predictions, config, source, view, model, saved, mesh)
    components = functools.partial(
        find_components.kept_in, workdir, taken, config,
        functools.partial(predict, (find_components.OUTPUT,)), images=len(source),
    )  # fmt: skip
    batch_size = batch_predict.fitting_batch(config.batch_size, images=len(source), mesh=mesh)
    if config.elastic:
        own = elastic.export(
            workdir, writer, layout, source,
            functools.partial(predict, config.outputs),
            components if config.components else None,
            batch_size=batch_size,
        )  # fmt: skip
        if own:
            _log_speed(own)
        return read_manifest(workdir)
    complete, done = _begin(writer, layout)
    if complete:
        logging.info("%s already contains these features", workdir)
        return read_manifest(workdir)
    found = components(started=bool(done.any())) if config.components else None
    left = order_of_parts(layout, np.flatnonzero(~done), batch_size=batch_size)
    predictions = predict(config.outputs, left)
    write_parts(predictions, layout, source, writer, found)
    collectives.barrier("all parts are stored")
    speed = _log_speed(predictions.speed)
    if jax.process_index() == 0:
        writer.finish(speed=speed, components=found.digest if found else None)
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
        num_workers=config.num_workers,
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
