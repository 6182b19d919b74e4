# SPDX-License-Identifier: BSD-3-Clause
"""The task `tagger`: chooses the settings left open, trains, and suggests what to do next."""

import contextlib
import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from absl import logging
from etils import epath

from mlimages_jax.checkpoints import own_thresholds
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.folds import Fold
from mlimages_jax.distributed import collectives, sharding, workdir_lock
from mlimages_jax.evaluation import thresholds_task
from mlimages_jax.files import paths
from mlimages_jax.labels import class_thresholds
from mlimages_jax.labels.colour_names import colours_among
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.plan import chips, estimate
from mlimages_jax.settings import (
    ConfigError,
    FindThresholds,
    Train,
    build,
    flatten,
    parse,
    replaced,
)
from mlimages_jax.settings.compound_rules import Open
from mlimages_jax.settings.fields import Values, table_of_fields
from mlimages_jax.settings.tagger import Suspects, Tagger
from mlimages_jax.settings.tasks import LabelledImages, Reading
from mlimages_jax.training import open_network, recipe, recipe_file, what_next
from mlimages_jax.training.check_labels import check_labels
from mlimages_jax.training.inputs import training_inputs
from mlimages_jax.training.start import fresh_state
from mlimages_jax.training.train import compile_step, train

_SOME_STEPS = 1_000_000  # longer than any warm-up that is given in steps
_BEST = "checkpoint.best"  # not in the file: it must fit what a restart evaluates
_TABLE = table_of_fields(Tagger)
_TIMED_STEPS = 10
_WARM_STEPS = 6  # more than the batches that are read ahead, which would be counted for nothing
_REST = 0.05  # part of the minutes for saves and the report
_EVALUATED = 0.5  # time to evaluate an image, in times to train on it


def tagger(config: Tagger, workdir: epath.PathLike, *, started: float | None = None) -> None:
    """Trains a tagger on a data set, with the recipe for its size and the devices.

    The choices are written to the workdir's recipe.json; a restart reads them from there.

    Args:
        config: Settings from configs/tagger.py.
        workdir: Folder of the run.
        started: As for `train.train`.

    Raises:
        UnsuitableSetError: There are too few images or no labels.
        Exception: As for `train.train`.
    """
    workdir = epath.Path(paths.absolute(workdir))
    begin = time.monotonic() if started is None else started
    with workdir_lock.held(workdir, task="tagger"):
        training = as_training(config, workdir, begin=begin)
        train(training, workdir, started=started)
        if training.compile_only:
            return
        several = not build.is_single_label(training.loss)
        thresholds = several and _find_thresholds(training, workdir)
    if collectives.process_number() == 0:
        evaluated = bool(training.evaluation.splits)
        what_next.tell(workdir, evaluated=evaluated, thresholds=thresholds)


def _find_thresholds(training: Train, workdir: epath.Path) -> bool:
    """Writes thresholds.tsv to the workdir, unless the one that is there is of these weights.

    Returns:
        Whether tagging has thresholds; a finished training does not fail without them.
    """
    if own_thresholds.are_in(workdir):
        logging.info(
            "%s is of these weights and stays as it is; delete it to find thresholds anew",
            workdir / class_thresholds.FILE_NAME,
        )
        return True
    evaluation, reading = training.evaluation, training.input
    if not evaluation.splits:
        return False
    search = FindThresholds(
        checkpoint=str(workdir),
        # Of this start: the best weights may be of an earlier one, with a set that was moved since.
        data=LabelledImages(
            folder=training.data.folder,
            copy_to=training.data.copy_to,
            split=evaluation.splits[0],
        ),
        label_confidence=evaluation.threshold,
        batch_size=evaluation.batch_size,
        input=Reading(num_threads=reading.num_threads, num_workers=reading.num_workers),
    )
    try:
        thresholds_task.find(search, workdir)
    except ConfigError as error:
        logging.warning("no thresholds were found, so tagging shows the best tags: %s", error)
        return False
    return True


def as_training(config: Tagger, workdir: epath.Path, *, begin: float) -> Train:
    """Returns the settings of the training, chosen now or by an earlier start of this workdir."""
    chosen = collectives.of_process_0(recipe_file.read(workdir))
    if chosen is None:
        data = DataSet.open(config.data.folder, copy_to=config.data.copy_to)
        chosen = _choices(config, data, workdir, begin=begin)
        recipe_file.write(workdir, chosen)
    return _with(config, chosen)


def _with(config: Tagger, chosen: Mapping[str, Any]) -> Train:
    """Settings of the task `train`; what the user gives takes precedence over what was chosen."""
    values = flatten(config)
    for name in ("epochs", "minutes", "folds", "shown", "engine", "workers"):
        values.pop(name, None)
    chosen = {name: value for name, value in chosen.items() if _is_left_open(name, values)}
    merged = values | chosen | {"task": "train"}
    if _is_left_open(_BEST, values):
        merged[_BEST] = recipe.best_metric(merged)
    training = parse(merged)
    assert isinstance(training, Train)
    return training


def _is_left_open(name: str, values: Values) -> bool:
    """Returns whether the recipe chooses a setting."""
    value = values.get(name)
    rule = _TABLE[name].rule
    # The sizes of the network are 0 or empty where they are left open, as in a training.
    return rule.is_open(value) if isinstance(rule, Open) else not value


def _choices(config: Tagger, data: DataSet, workdir: epath.Path, *, begin: float) -> dict[str, Any]:
    """Chooses the open settings and logs the choice; `begin` is when the minutes started."""
    images = _trained_images(config, data)
    counts = check_labels(data, config.data.train_split)
    device = jax.local_devices()[0]  # those of other processes do not tell their memory
    setting = recipe.Setting(
        images=images,
        platform=device.platform,
        devices=jax.device_count(),
        # An image without labels tells a tagger what is absent, and a softmax nothing.
        single_label=data.max_labels == 1 and data.missing_labels == 0 and not counts.unlabelled,
        colours=len(colours_among(Hierarchy.from_file(data.class_list).names)),
    )
    chosen = recipe.choose(config, setting)
    # Memory and speed are measured before the length is known. The speed is that of long runs,
    # whose augmentation takes longer.
    any_length = chosen | {"accumulate": 1, **_of_length(_SOME_STEPS, epochs=math.inf)}
    trial = open_network.filled(_with(config, any_length), workdir)
    parts = config.accumulate or _parts_that_fit(trial, data, device)
    chosen["accumulate"] = collectives.of_process_0(parts)  # as memory may differ between hosts
    in_time = None
    if config.minutes and not config.total_steps:
        trial = replaced(trial, {"accumulate": chosen["accumulate"]})
        in_time = _steps_in_time(config.minutes, trial, data, workdir, begin=begin)
    steps = recipe.length(config, images=images, batch_size=trial.batch_size, steps_in_time=in_time)
    epochs = steps * trial.batch_size / images
    values = flatten(config)
    chosen = {
        name: value if _is_left_open(name, values) else values[name]
        for name, value in (chosen | _of_length(steps, epochs=epochs)).items()
    }
    logging.info(
        "%d images, %d classes, %s: %s; %d steps are %.1f epochs (recipe.json)",
        images, data.num_classes, "one class per image" if setting.single_label else "tags",
        ", ".join(f"{name}={value}" for name, value in chosen.items()),
        steps, epochs,
    )  # fmt: skip
    # Measured times differ between processes, and with them the number of steps.
    return collectives.of_process_0(chosen)


def _trained_images(config: Tagger, data: DataSet) -> int:
    """Returns how many images the training sees, without the fold that is kept out."""
    images = data.num_records(config.data.train_split)
    if isinstance(config, Suspects):
        return images - images // config.folds
    if config.data.fold:
        return images - int(Fold(*config.data.fold).mask(images).sum())
    return images


def _of_length(steps: int, *, epochs: float) -> dict[str, Any]:
    """The choices that depend on the length."""
    return {
        "total_steps": steps,
        "optimizer.ema_decay": recipe.ema_decay(steps),
        **recipe.augmentation(epochs),
    }


def _parts_that_fit(config: Train, data: DataSet, device: jax.Device) -> int:
    """Returns the smallest number of parts of a batch that fits into the device's memory."""
    stats = device.memory_stats() or {}
    if "bytes_limit" not in stats:  # CPUs do not report it
        return 1
    # Only the memory counts here; the other numbers of the chip are for times.
    chip = chips.CHIPS["a100"]._replace(memory=float(stats["bytes_limit"]))

    def plan(changed: Train) -> estimate.Plan:
        return estimate.make_plan(
            changed, chip=chip, devices=jax.device_count(), num_classes=data.num_classes
        )

    found = estimate.smallest_accumulation(config, plan)
    if found is None:
        raise ConfigError(
            f"batches of {config.batch_size} images do not fit into {chip.memory / 1e9:.0f} GB, "
            "not even in parts: give a smaller --config.batch_size or --config.image_size"
        )
    return found[0]


def _steps_in_time(
    minutes: float, trial: Train, data: DataSet, workdir: epath.Path, *, begin: float
) -> int:
    """Counts the steps that fit into the minutes since `begin`, beside all else a run does."""
    speed = measure_speed(trial, data, workdir)
    images = sum(data.num_records(split) for split in trial.evaluation.splits)
    # Of the raw and of the EMA weights.
    evaluation = 2 * images * _EVALUATED * speed.step / trial.batch_size
    every, step, number = trial.evaluate_every, speed.step, 1.0
    if 0 < every < 1:  # a fraction of the run
        number = 1 / every
    elif every:
        step += evaluation / every
    # One more, in two halves: the best weights for the report, and the search for thresholds.
    rest = evaluation * (number + 1)
    # The number of steps is part of the program, which is compiled once more.
    left = 60 * minutes * (1 - _REST) - (time.monotonic() - begin) - rest - speed.compilation
    return max(1, int(left / step))


class Speed(NamedTuple):
    """Seconds to compile a training step, and seconds per step."""

    compilation: float
    step: float


def measure_speed(config: Train, data: DataSet, workdir: epath.Path) -> Speed:
    """Measures compilation and steps, with real batches and fresh weights."""
    mesh = sharding.make_mesh()
    training = build.training_step(
        config, mesh, num_classes=data.num_classes, missing_labels=data.missing_labels
    )
    stage = build.stages(config)[0]
    begin = time.monotonic()
    compiled = compile_step(training, stage, data.max_labels)
    compilation = time.monotonic() - begin
    state = fresh_state(config, training, data)
    inputs = training_inputs(config, data, mesh, workdir)
    with contextlib.closing(inputs(stage, start_step=0)) as batches:
        for step in range(_WARM_STEPS + _TIMED_STEPS):
            # The first steps wait for the first batches, and for memory to be allocated.
            if step == _WARM_STEPS:
                jax.block_until_ready(state)
                begin = time.monotonic()
            state, _ = compiled(state, next(batches))
        jax.block_until_ready(state)
        return Speed(compilation, (time.monotonic() - begin) / _TIMED_STEPS)
