# SPDX-License-Identifier: BSD-3-Clause
"""Prepares a run: its data set, its first state, and the checks against earlier runs."""

import json
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from jax.sharding import Mesh

from mlimages_jax.checkpoints import places
from mlimages_jax.checkpoints.loading import HEAD, restore_weights
from mlimages_jax.checkpoints.manager import Checkpoints
from mlimages_jax.checkpoints.saved_step import DamagedCheckpointError
from mlimages_jax.data import fingerprint
from mlimages_jax.data.class_priors import class_priors
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.distributed import agreement, sharding
from mlimages_jax.files import paths, text_files
from mlimages_jax.files.remote import write_text
from mlimages_jax.labels import word_list
from mlimages_jax.labels.class_map import same_classes
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.monitoring import commands
from mlimages_jax.settings import Train, build, restart
from mlimages_jax.step.stages import Stage
from mlimages_jax.step.state import TrainState, with_head_bias, with_weights
from mlimages_jax.step.training_step import TrainingStep

_SEVERAL_LABELS = "use --config.loss.name=sigmoid, asymmetric, focal, two_way or weighted"


def open_data(config: Train) -> DataSet:
    """Opens the data set and checks that it is suitable for the loss.

    Raises:
        FileNotFoundError: The data set is missing.
        ConfigError: The softmax loss needs one class per image and at least two classes.
    """
    data = DataSet.open(config.data.folder, copy_to=config.data.copy_to)
    if build.is_single_label(config.loss) and data.num_classes < 2:
        raise build.ConfigError(
            f"loss.name='softmax' needs at least two classes, but {data.folder} has "
            f"{data.num_classes}: {_SEVERAL_LABELS}"
        )
    if build.is_single_label(config.loss) and data.max_labels > 1:
        raise build.ConfigError(
            f"loss.name='softmax' needs one class per image, but {data.folder} has up to "
            f"{data.max_labels}: {_SEVERAL_LABELS}"
        )
    return data


def data_identity(config: Train, data: DataSet) -> dict[str, str]:
    """Fingerprints of the splits that a run uses, checked to be the same on all processes.

    Raises:
        DataSetError: The data set lacks a split.
        DifferentProcessesError: The processes see different data sets.
    """
    splits = [config.data.train_split, *config.evaluation.splits]
    found = fingerprint.fingerprint(data, splits)
    agreement.check_same({f"data set ({part})": digest for part, digest in found.items()})
    return found


def check_sizes(config: Train, stages: list[Stage], mesh: Mesh) -> None:
    """Checks that all batch sizes are divisible by devices and groups.

    Raises:
        ConfigError: They are not; the message gives the numbers.
    """
    try:
        for stage in stages:
            sharding.check_batch(
                batch_size=stage.batch_size, group_size=config.group_size, mesh=mesh
            )
        # Evaluation uses the running statistics, so it has no groups.
        sharding.check_batch(batch_size=config.evaluation.batch_size, group_size=None, mesh=mesh)
    except ValueError as error:
        raise build.ConfigError(str(error)) from error


def first_state(
    config: Train,
    training: TrainingStep,
    data: DataSet,
    checkpoints: Checkpoints,
    settings: dict[str, Any],
    *,
    unresolved: Train,
) -> TrainState:
    """Returns the state that a run starts or resumes from.

    Args:
        config: Settings of the run.
        training: Model, optimizer and layout of the state.
        data: Data set of the run.
        checkpoints: Checkpoints of the workdir.
        settings: Settings to compare with those of the checkpoint.
        unresolved: The settings before fractions of the run became steps, see `restored`.

    Raises:
        ConfigError: The checkpoint was trained with other settings, or on another data set.
        DamagedCheckpointError: All checkpoints of the workdir, or `init_from`, are damaged.
        CheckpointMismatchError: Arrays differ in name, shape or dtype.
        FileNotFoundError: `init_from` contains no checkpoint.
    """
    # 1. The newest intact checkpoint of the workdir: resume.
    if found := restored(checkpoints, settings, training.abstract_state, unresolved=unresolved):
        return found
    # 2. The weights of another run: fine-tune.
    state = fresh_state(config, training, data)
    if config.init_from:
        return begin_with(config.init_from, training, data, fresh=state)
    # 3. Random weights.
    return state


def restored(
    checkpoints: Checkpoints,
    settings: dict[str, Any],
    abstract_state: TrainState,
    *,
    unresolved: Train | None = None,
) -> TrainState | None:
    """Restores the newest intact checkpoint of a workdir; sets damaged ones aside and logs it.

    Args:
        checkpoints: Checkpoints of the workdir.
        settings: Settings of this run, to compare with those of the checkpoint.
        abstract_state: State that gives names, shapes, dtypes and shardings.
        unresolved: Configuration whose steps may be fractions of the run, for a run that has a new
            length; None if no setting depends on the length.

    Returns:
        The state; None if there is no checkpoint.

    Raises:
        ConfigError: It was trained with other settings, or on another data set.
        DamagedCheckpointError: There are checkpoints, but all of them are damaged.
    """
    # Each turn sets a damaged step aside, so that the one before it becomes the newest.
    while (step := checkpoints.newest()) is not None:
        try:
            saved = checkpoints.config_of(step)
            as_long = restart.values_as_long_as(saved, unresolved) if unresolved else {}
            check_same_training(saved, settings | as_long)
            state = checkpoints.restore(abstract_state, step=step)
        except DamagedCheckpointError as error:
            checkpoints.set_aside(step, error)
            continue
        logging.info("resuming from %s", checkpoints.directory / str(step))
        if unresolved and (told := restart.change_of_schedule(saved, unresolved, step=step)):
            logging.warning("%s", told)
        return state
    checkpoints.check_any_left()
    return None


def check_same_training(saved: dict[str, Any], settings: dict[str, Any]) -> None:
    """Checks that a checkpoint was trained with the settings and the data set of this run.

    Raises:
        ConfigError: Settings or data sets differ.
    """
    if "imported" not in saved:
        saved = {"orientation": "stored"} | saved  # older versions supported no other
    if "init_from" in saved and paths.same_place(saved["init_from"], settings.get("init_from")):
        saved = saved | {"init_from": settings.get("init_from")}  # same path, spelled differently
    restart.check_unchanged(saved, settings)
    check_same_set(saved, settings)


def check_same_set(saved: dict[str, Any], settings: dict[str, Any]) -> None:
    """Checks that a checkpoint was trained on the data set of this run.

    Raises:
        ConfigError: The data sets differ, and `data.allow_change` is not set.
    """
    if "data_set" not in saved:
        logging.info("the checkpoint does not record its data set, so it is not compared")
        return
    # Compared by content, as a set may have been moved to another folder.
    changed = fingerprint.differences(saved["data_set"], settings["data_set"])
    if not changed:
        return
    before, now = saved["data"]["folder"], settings["data"]["folder"]
    line = (
        f"the data set in {now} is not the one that the checkpoint was trained on (then in "
        f"{before}): {', '.join(changed)} differ"
    )
    if not settings["data"].get("allow_change"):
        raise build.ConfigError(
            f"{line}. Give the original one with --config.data.folder, or another --workdir; if "
            "the change is intended, set --config.data.allow_change=True"
        )
    logging.warning("%s; continuing because data.allow_change is set", line)


def begin_with(
    path: str, training: TrainingStep, data: DataSet, *, fresh: TrainState
) -> TrainState:
    """Returns a fresh state with the weights of another run, without its head if classes differ."""
    place = places.local(path)
    weights = restore_weights(place, training.abstract_state)
    logging.info("initialising with the weights of %s", path)
    # Equal numbers of classes do not make equal classes: compared by their ids, not by shape only.
    kept = places.classes_at(place)
    if kept and not same_classes(kept, Hierarchy.from_file(data.class_list)):
        weights["params"].pop(HEAD, None)
    if HEAD not in weights["params"]:
        logging.info(
            "its classes differ: the classifier for %d classes is reinitialised", data.num_classes
        )
    return with_weights(fresh, weights)


def frequencies(config: Train, data: DataSet) -> np.ndarray | None:
    """Returns the frequencies of the classes, float64 [C], if `loss.positive_weight` needs them."""
    if not config.loss.positive_weight:
        return None
    priors = class_priors(data, config.data.train_split)
    weights = build.frequency_weights(priors, limit=config.loss.positive_weight_limit)
    logging.info(
        "present labels have the weights absent / present of their classes, %.2g to %.2g",
        weights.min(), weights.max(),
    )  # fmt: skip
    return priors


def fresh_state(config: Train, training: TrainingStep, data: DataSet) -> TrainState:
    """Initialises random weights; `loss.prior_bias` sets the bias by the classes' frequencies."""
    state = training.fresh_state(seed=config.seed)
    if not config.loss.prior_bias:
        return state
    # Otherwise a classifier of rare classes starts with probabilities of 1/2, and the first steps
    # do little but lower its biases, at a rate that suits kernels (Lin et al., 2017, section 3.3).
    priors = class_priors(data, config.data.train_split)
    logging.info(
        "the classifier's bias starts from the frequencies of the classes, %.2g to %.2g",
        priors.min(), priors.max(),
    )  # fmt: skip
    return with_head_bias(state, build.prior_logits(config.loss, priors), head=HEAD)


def keep_in_workdir(workdir: epath.Path, settings: dict[str, Any], data: DataSet) -> None:
    """Writes configuration, classes and command to the workdir, for users of the checkpoints.

    All processes compare the classes with those in the workdir; only process 0 writes.

    Raises:
        ConfigError: The workdir contains the classes of another data set.
    """
    classes, kept = text_files.read_text(data.class_list), workdir / "dictionary.txt"
    if (
        kept.exists()
        and text_files.read_text(kept) != classes
        and not _is_list_of_words(kept, data)
    ):
        raise build.ConfigError(
            f"{kept} and {data.class_list} have different classes: train on the data set that this "
            "workdir was started with, or give another --workdir"
        )
    if jax.process_index() == 0:
        write_text(workdir / "config.json", json.dumps(settings, indent=1))
        write_text(kept, classes)
        commands.record(workdir)


def _is_list_of_words(kept: epath.Path, data: DataSet) -> bool:
    """Returns whether a file lists the classes of the set by words only, without ids."""
    # As the release has it for ImageNet: its text differs from that of the same classes with ids.
    if not word_list.lacks_ids(kept.read_text()):
        return False
    return same_classes(Hierarchy.from_file(kept), Hierarchy.from_file(data.class_list))
