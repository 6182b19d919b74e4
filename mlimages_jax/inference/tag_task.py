# SPDX-License-Identifier: BSD-3-Clause
"""The task of configs/classify.py: writes the tags of images to a file, in input order."""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
from absl import logging
from etils import epath

from mlimages_jax.checkpoints import places, saved_model
from mlimages_jax.checkpoints.saved_step import agreed
from mlimages_jax.checkpoints.weights_digest import weights_digest
from mlimages_jax.data.images.views import EvaluationView
from mlimages_jax.distributed import collectives, sharding, workdir_lock
from mlimages_jax.files import paths
from mlimages_jax.files.remote import is_remote
from mlimages_jax.inference import batch_predict, chosen_thresholds, pretrained, tag_files, tagging
from mlimages_jax.inference.batch_predict import Speed
from mlimages_jax.inference.by_tag import ByTag, folder_names
from mlimages_jax.inference.image_source import ImageFiles, ImageSource, open_images
from mlimages_jax.inference.model import Model, ModelError
from mlimages_jax.inference.tag_files import TagFileError
from mlimages_jax.inference.tag_outputs import TagOutputs
from mlimages_jax.inference.tag_record import finished_rows
from mlimages_jax.inference.tag_sheet import TagSheet
from mlimages_jax.inference.tag_update import CHECKPOINT, Job, update_file
from mlimages_jax.inference.tagging import Tag, ThresholdError
from mlimages_jax.inference.watched_images import WatchedImages
from mlimages_jax.labels.hierarchy import Hierarchy, HierarchyError
from mlimages_jax.models.architecture import UnknownArchitectureError
from mlimages_jax.settings import Classify, build, checked


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
    """Tags images as configured; resumes a command that stopped, and extends a finished file.

    Args:
        config: Settings of the task.
        workdir: Folder of the file if `config.output` is empty.

    Raises:
        FileNotFoundError: If images, checkpoint, thresholds or class list are missing.
        ConfigError: If a value is invalid, the checkpoint lacks class names or its loss, or the
            output already exists and was made in another way.
        ImageSourceError, DataSetError: If the input contains no images or is misused.
        TooManyBadImagesError: If there are more than `config.max_errors` errors.
        Preempted: If the command was asked to stop, which is how `config.watch` ends.
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
            if config.copy_to and not is_remote(config.copy_to):
                name = ".mlimages_by_tag.lock"
                stack.enter_context(workdir_lock.held(config.copy_to, task="classify", name=name))
            return _classify(config, output, file_format)
    except (
        HierarchyError, ModelError, TagFileError, ThresholdError, UnknownArchitectureError,
    ) as error:  # fmt: skip
        raise build.ConfigError(str(error)) from error


def _classify(config: Classify, output: Path, file_format: str) -> Summary:
    """Runs `classify` while the output file is locked."""
    watched = _watched(config) if config.watch else None
    source = None if watched else batch_predict.open_shared(config)
    _check_outputs(config, source)
    job = _job(config, output, file_format, built=source is not None and source.built)
    outputs = _outputs(config, job.model)
    if watched:
        _watch(job, watched, outputs)
    assert source
    update = update_file(job, source, overwrite=config.overwrite)
    _log_speed(update.speed)
    done = _follow(outputs, source, output)
    logging.info("%s: tags of %d images, %d errors%s", output, len(source), update.errors, done)
    return Summary(output, len(source), update.errors)


def _watch(job: Job, watched: WatchedImages, outputs: TagOutputs | None) -> NoReturn:
    """Updates the file at every change, until the program is asked to stop."""
    overwrite = job.config.overwrite
    for source in watched:
        update = update_file(job, source, overwrite=overwrite)
        overwrite = False  # from now on the file is our own
        done = _follow(outputs, source, job.output)
        logging.info(
            "%s: tagged %d of %d images, %d errors%s",
            job.output, update.tagged, len(source), update.errors, done,
        )  # fmt: skip
    raise AssertionError("watching ends by an exception only")


def _watched(config: Classify) -> WatchedImages:
    if collectives.is_one_of_many():
        raise build.ConfigError("watch=True is for one process: start it on one machine only")

    def look() -> ImageFiles:
        images = open_images(config.input, images_root=config.images_root or None)
        if not isinstance(images, ImageFiles):
            raise build.ConfigError(
                f"watch=True: {config.input} is a built set, which does not change; give a folder "
                "or a list of images"
            )
        return images

    if config.split:
        raise build.ConfigError("watch=True is for folders and lists, which have no splits")
    return WatchedImages(look, interval=config.interval)


def _check_outputs(config: Classify, source: ImageSource | None) -> None:
    """Checks that what is made besides the file is possible for these images."""
    for name in ("sidecars", "copy_to"):
        if getattr(config, name) and source and source.built:
            raise build.ConfigError(
                f"{name}={getattr(config, name)!r}: the images of a built set are no files of "
                "their own; give the folder they came from"
            )
    images = os.path.realpath(paths.expanded(config.input))
    for name in ("copy_to", "html"):
        target = getattr(config, name)
        if is_remote(target):
            raise build.ConfigError(f"{name}={target}: give a path on a local disk")
        if target and Path(os.path.realpath(paths.expanded(target))).is_relative_to(images):
            raise build.ConfigError(
                f"{name}={target} is inside {config.input}, so its files would be tagged too: "
                "give a path outside"
            )
    if config.html and Path(config.html).suffix.lower() not in (".html", ".htm"):
        raise build.ConfigError(f"html={config.html}: end the name of the page with .html")


def _outputs(config: Classify, model: Model) -> TagOutputs | None:
    """Returns the outputs besides the file, on the process that writes."""
    if jax.process_index() != 0 or not (config.sidecars or config.copy_to or config.html):
        return None
    by_tag, sheet = None, None
    assert model.hierarchy
    if config.copy_to:
        by_tag = ByTag(Path(paths.absolute(config.copy_to)), folder_names(model.hierarchy))
    if config.html:
        limits = model.class_limits(**_rules(config))
        path = Path(paths.absolute(config.html))
        one_class = model.loss == "softmax"
        sheet = TagSheet(path, model.hierarchy, limits=limits, one_class=one_class)
    return TagOutputs(sidecars=config.sidecars, by_tag=by_tag, sheet=sheet)


def _follow(outputs: TagOutputs | None, source: ImageSource, output: Path) -> str:
    """Updates the outputs besides the file; returns what was done, as the rest of a log line."""
    done = outputs.update(source, lambda: finished_rows(output)) if outputs else []
    collectives.barrier("sidecars and folders by tag are complete")
    return "".join(f"; {phrase}" for phrase in done)


def _job(config: Classify, output: Path, file_format: str, *, built: bool) -> Job:
    """Loads the model, and returns what all updates of the file share."""
    mesh = sharding.make_mesh()
    # Only to refuse an impossible batch size now, before the model is loaded.
    batch_predict.fitting_batch(config.batch_size, images=0, mesh=mesh)
    folder = places.local(config.checkpoint)
    model = _load(config, folder, place=sharding.replicated(mesh))
    config = dataclasses.replace(config, top_k=_most_tags(config, model))
    tags_of = _tagger(config, model)
    upright = saved_model.turns_upright(
        agreed(lambda: places.opened(folder).config), config.exif_orientation, built=built
    )
    view = dataclasses.replace(model.view, exif_orientation=upright)
    about = _about(config, model, view=view) | {CHECKPOINT: os.fspath(folder)}
    return Job(config, output, file_format, mesh, model, view, tags_of, about)


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
        classes=config.classes or None,
        image_size=config.view.size or None,
        dtype=config.dtype,
        view=config.view.name or None,
        loss=config.loss or None,
        sharding=place,
        # Without this, thresholds that are not used would be looked for, and announced.
        thresholds=chosen_thresholds.NONE if config.threshold or config.thresholds else None,
    )


def _most_tags(config: Classify, model: Model) -> int:
    """Returns the maximum number of tags per image, 0 for no limit; logs one that is chosen."""
    if config.top_k >= 0:
        return config.top_k
    one_class = model.loss == "softmax"
    most = tagging.usual_top_k(model.class_limits(**_rules(config)), one_class=one_class)
    if one_class:
        logging.info("one tag per image, its most probable class; top_k=5 gives more")
    elif most is None:
        logging.info("all tags that reach their thresholds; top_k=5 gives at most five per image")
    else:
        logging.info(
            "at most %d tags per image, as not all classes have thresholds; top_k=0: all", most
        )
    return most or 0


def _tagger(config: Classify, model: Model) -> Callable[[np.ndarray], list[list[Tag]]]:
    """Returns the function from logits to tags."""
    return model.tagger(top_k=config.top_k or None, consistent=config.consistent, **_rules(config))


def _rules(config: Classify) -> dict[str, Any]:
    """Returns which scores make a tag, as arguments of `Model.tag`."""
    return {"threshold": config.threshold or None, "thresholds": config.thresholds or None}


def _about(config: Classify, model: Model, *, view: EvaluationView) -> dict[str, Any]:
    """Returns everything that determines the row of an image, as JSON values."""
    names = ("split", "top_k", "threshold", "consistent", "dtype")
    assert model.hierarchy
    # In the order of the classes, as a spreadsheet may have sorted the lines of the file.
    thresholds = model.thresholds.of(model.hierarchy).tobytes() if model.thresholds else b""
    if config.thresholds not in ("", chosen_thresholds.NONE):
        thresholds = Path(config.thresholds).read_bytes()
    return {
        "weights": weights_digest({"params": model.params, "batch_stats": model.batch_stats}),
        "loss": [model.loss, model.positive_weight],
        "dictionary": _digest_of(model.hierarchy),
        "input": paths.absolute(config.input),
        "images_root": config.images_root and paths.absolute(config.images_root),
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


def _log_speed(speed: Speed | None) -> None:
    """Logs how fast this process was, and what it waited for."""
    if speed and speed.images:
        logging.info(
            "%.1f images/s; waiting for images %.0f%%, for the network %.0f%% of the time",
            speed.images / speed.seconds,
            100 * speed.reading / speed.seconds,
            100 * speed.network / speed.seconds,
        )
