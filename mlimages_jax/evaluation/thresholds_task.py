# SPDX-License-Identifier: BSD-3-Clause
"""The task of configs/thresholds.py: finds a threshold for each class, writes thresholds.tsv."""

import jax
import numpy as np
from absl import logging
from etils import epath

from mlimages_jax.checkpoints import manager, saved_model, step_folders
from mlimages_jax.checkpoints.weights_digest import weights_digest
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.distributed import collectives, workdir_lock
from mlimages_jax.evaluation.checkpoint_evaluation import (
    check_batch,
    evaluation_of,
    load_to_evaluate,
)
from mlimages_jax.files import paths
from mlimages_jax.files.remote import write_text
from mlimages_jax.labels import class_thresholds
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.metrics.multi_label import MultiLabelMetrics
from mlimages_jax.metrics.thresholds import FoundThresholds, Objective, find_thresholds
from mlimages_jax.settings import FindThresholds, build, checked


def find(config: FindThresholds, workdir: epath.PathLike) -> epath.Path:
    """Finds thresholds as configured, and returns the path of their file.

    Args:
        config: Settings of the task.
        workdir: Folder for the list of bad images.

    Raises:
        FileNotFoundError: If there is no checkpoint or no data set.
        DamagedCheckpointError: If the checkpoint is damaged.
        ConfigError: If the checkpoint does not match the set or predicts one class per image, no
            image has a label, or a value is invalid.
        DataSetError: If the set does not have the split.
        TooManyBadImagesError: If there are more than `config.input.max_bad_images` bad images.
        Preempted: If asked to stop.
    """
    config = checked(config)
    workdir = epath.Path(paths.absolute(workdir))
    with workdir_lock.held(workdir, task="thresholds"):
        return _find(config, workdir)


def _find(config: FindThresholds, workdir: epath.Path) -> epath.Path:
    """Runs `find` while the workdir is locked."""
    workdir.mkdir(parents=True, exist_ok=True)
    check_batch(config.batch_size, name="batch_size")
    folder = step_folders.resolve_for_all(config.checkpoint)
    data, split = _labelled_images(config, folder)
    checkpoint = load_to_evaluate(folder, data, loss=config.loss, ema=config.ema)
    if build.is_single_label(checkpoint.usage(loss=config.loss).loss_settings):
        raise build.ConfigError(
            f"{folder} predicts one class per image, the most probable one, which needs no "
            "threshold: thresholds are for models with several labels per image"
        )
    view = checkpoint.view(config.view, exif_orientation=config.exif_orientation, built=True)
    evaluation = evaluation_of(
        checkpoint,
        data,
        view,
        config.input,
        split=split,
        loss=config.loss,
        threshold=config.label_confidence,
        batch_size=config.batch_size,
        dtype=config.dtype,
        workdir=workdir,
    )
    values, metrics = evaluation.run(checkpoint.weights)
    assert isinstance(metrics, MultiLabelMetrics)
    search = config.thresholds
    try:
        found = find_thresholds(
            metrics, Objective(search.objective, search.wanted), kappa=search.kappa
        )
    except ValueError as error:
        raise build.ConfigError(f"{data.folder}, {split}: {error}") from error
    path = epath.Path(paths.absolute(config.output)) if config.output else None
    path = path or saved_model.thresholds_place(folder)  # where tagging and `load` look for it
    if jax.process_index() == 0:
        about = {
            "data": f"{data.folder}",
            "split": split,
            "images": int(values["examples"]),
            "step": checkpoint.step,
            "view": f"{view.name} {view.size}",
            # With these two, thresholds of another model or calibration are recognised.
            "weights": weights_digest(checkpoint.weights),
            "positive weight": f"{metrics.positive_weight or 1:g}",
        }
        hierarchy = checkpoint.hierarchy or Hierarchy.from_file(data.class_list)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, file_of(found, hierarchy, about))
    collectives.barrier("the thresholds are written")
    _log(found, path)
    return path


def file_of(found: FoundThresholds, hierarchy: Hierarchy, about: dict[str, object]) -> str:
    """Returns the content of thresholds.tsv.

    Args:
        found: The thresholds.
        hierarchy: The classes.
        about: Where they were found, by name.
    """
    decimals = class_thresholds.decimals
    fractions = {"precision": found.precision, "recall": found.recall, "F1": found.f1}
    asked, classes = found.objective.name, len(hierarchy)
    missed = {f"classes below this {asked}": f"{found.missed.sum()} of {classes}"}
    overall = {
        "optimised": str(found.objective),
        **(missed if asked != "f1" else {}),
        "kappa": f"{found.kappa:g}",
        "threshold of all classes together": decimals([found.overall])[0],
    }
    return class_thresholds.write_text(
        overall | about,
        {
            "class": range(len(hierarchy)),
            "id": hierarchy.ids,
            "threshold": decimals(found.probabilities),
            "own threshold": decimals(found.unshrunk),
            "positives": found.positives.tolist(),
            **{
                name: ["" if np.isnan(value) else f"{value:.4f}" for value in values]
                for name, values in fractions.items()
            },
            "name": hierarchy.names,
        },
    )


def _labelled_images(config: FindThresholds, folder: epath.Path) -> tuple[DataSet, str]:
    """Returns the data set and the split, of the training where none are given.

    Raises:
        ConfigError: If the checkpoint does not say on which set it was trained.
    """
    trained = manager.config_of(folder)
    name = config.data.folder or trained.get("data", {}).get("folder", "")
    if not name:
        raise build.ConfigError(
            f"{folder} does not say on which data set it was trained: give --data=FOLDER"
        )
    try:
        data = DataSet.open(name, copy_to=config.data.copy_to)
    except FileNotFoundError as error:
        if config.data.folder:
            raise
        raise build.ConfigError(
            f"the data set of the training, {name}, is not available: give --data=FOLDER"
        ) from error
    splits = trained.get("evaluation", {}).get("splits") or ["val"]
    return data, config.data.split or splits[0]


def _log(found: FoundThresholds, path: epath.Path) -> None:
    has = found.positives > 0
    logging.info(
        "%s: %s, %d of %d classes have positives, %.3f for all together; mean of the classes: "
        "precision %.4f, recall %.4f, F1 %.4f (on the images they were found on)",
        path, found.objective, has.sum(), has.size, found.overall,
        np.nanmean(found.precision[has]), np.nanmean(found.recall[has]), np.nanmean(found.f1[has]),
    )  # fmt: skip
    if missed := int(found.missed.sum()):
        asked = found.objective.name
        logging.warning(
            "%d of %d classes have a %s below %g on these images and are used all the same: see "
            "the column %s of the file, and raise their thresholds there to leave them out",
            missed, has.size, asked, found.objective.wanted, asked,
        )  # fmt: skip
