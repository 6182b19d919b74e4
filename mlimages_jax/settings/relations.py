# SPDX-License-Identifier: BSD-3-Clause
"""Constraints between settings that are valid by themselves.

The values are resolved: steps, not fractions of the run.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from mlimages_jax.settings.losses import WEIGHABLE
from mlimages_jax.settings.metric_names import metric_names
from mlimages_jax.settings.rules import LARGEST, nearest


class Relation(NamedTuple):
    """A constraint on several settings.

    Attributes:
        names: Names of the settings; the error message names the first.
        problem: Takes their values; returns the text to follow "name=value", or None if they are
            valid.
    """

    names: tuple[str, ...]
    problem: Callable[..., str | None]


def _divides(group: int, batch: int) -> bool:
    return not group or batch % group == 0


def _group_size(group: int, batch: int, resize: Any) -> str | None:
    for size in (batch, *(entry[2] for entry in resize)):
        if not _divides(group, size):
            return f": batch_size={size} is not divisible by group_size={group}"
    return None


def _loss_groups(name: str) -> tuple[Relation, Relation]:
    """Constrains the images that a loss takes together: to divide batches, and parts of batches."""
    setting = f"loss.{name}.group_size"

    def whole(group: int, batch: int, resize: Any, loss: str) -> str | None:
        for size in (batch, *(entry[2] for entry in resize)):
            if loss == name and not _divides(group, size):
                return f": batch_size={size} is not divisible by {setting}={group}"
        return None

    def in_parts(parts: int, group: int, batch: int, resize: Any, loss: str) -> str | None:
        for size in (batch, *(entry[2] for entry in resize)):
            if loss == name and parts > 1 and group and size % (parts * group):
                return (
                    f": batch_size={size} is not {parts} equal parts of whole groups, with "
                    f"{setting}={group}"
                )
        return None

    return (
        Relation((setting, "batch_size", "resize", "loss.name"), whole),
        Relation(("accumulate", setting, "batch_size", "resize", "loss.name"), in_parts),
    )


def _positive_weight(choice: str, loss: str) -> str | None:
    if not choice or loss in (*WEIGHABLE, ""):  # "" is chosen later, and checked again
        return None
    return f": loss.name={loss!r} has no such weights; {', '.join(WEIGHABLE)} have"


def _accumulate(parts: int, group: int, batch: int, resize: Any) -> str | None:
    if parts == 1:
        return None
    for size in (batch, *(entry[2] for entry in resize)):
        if not group or size % (parts * group):
            groups = f"groups of group_size={group}" if group else "one group (group_size=0)"
            return f": batch_size={size} is not {parts} equal parts of whole groups, with {groups}"
    return None


def _resize_steps(resize: Any) -> str | None:
    steps = [entry[0] for entry in resize]
    return None if steps == sorted(set(steps)) else f": the steps of resize must increase: {steps}"


def _same_batch(resize: Any, batch: int, loss: str, order: str) -> str | None:
    if all(entry[2] == batch for entry in resize):
        return None
    if loss == "weighted":
        return (
            ": loss.name='weighted' counts the classes of every group from step to step, so the "
            "batch size in config.resize must stay the same"
        )
    if order == "streams":
        return (
            ": data.order='streams' splits the data set into batch_size / group_size streams, so "
            "the batch size in config.resize must stay the same"
        )
    return None


def _mixing(group: int, batch: int, mixup: float, cutmix: float) -> str | None:
    if (group or batch) > 1 or not (mixup or cutmix):
        return None
    name = "group_size=1" if group == 1 else "a batch of 1"
    return f": mixup and cutmix mix the images of a group, and {name} has only one"


def _widths(widths: Any, sizes: Any) -> str | None:
    if widths and sizes and len(widths) != len(sizes):  # empty: those of init_from
        return (
            f": {len(widths)} stages, but model.stage_sizes={sizes} has {len(sizes)}; set both to "
            "the same number of stages"
        )
    if any(width % 4 for width in widths):
        return ": give multiples of 4: the inner convolutions have a quarter of the channels"
    return None


def _warmup_of(schedule: str) -> Relation:
    """Constrains the warm-up of a schedule that ends at its own total_steps."""

    def problem(warmup: int, total: int, name: str) -> str | None:
        if name != schedule or warmup < total:
            return None
        return f": the warm-up must be shorter than schedule.{schedule}.total_steps={total}"

    prefix = f"schedule.{schedule}"
    names = (f"{prefix}.warmup_steps", f"{prefix}.total_steps", "schedule.name")
    return Relation(names, problem)


def _constant(warmup: int, total: int, name: str) -> str | None:
    if name != "constant" or not total or warmup < total:
        return None
    return f": the warm-up must be shorter than total_steps={total}"


def _pretraining(warmup: int, total: int, name: str) -> str | None:
    if name != "pretraining" or not total or warmup < total:
        return None
    return f": the warm-up must be shorter than total_steps={total}"


def _warmup_rises(factor: float, rate: float, every: int, warmup: int, name: str) -> str | None:
    """Checks the last rate of the warm-up by its logarithm, as the rate itself may overflow."""
    if name != "pretraining" or not rate or not warmup:
        return None
    highest = math.log(rate) + (warmup - 1) // every * math.log(factor)  # in the last warm-up step
    if highest < math.log(LARGEST):
        return None
    return f": applied every {every} of {warmup} warm-up steps, it makes the rate infinite"


def _fold(fold: Any, order: str) -> str | None:
    if not fold:
        return None
    if len(fold) != 2 or not 0 <= fold[0] < fold[1] or fold[1] < 2:
        return ": give the number of a part, from 0, and that of all parts, at least 2: '(0, 3)'"
    return ": only with data.order='global'" if order != "global" else None


def _profile(steps: Any) -> str | None:
    if not steps or (len(steps) == 2 and steps[0] <= steps[1]):
        return None
    return ": give the first and the last step, spelt '(100, 105)'"


_BEST_DEPENDS_ON = (
    "checkpoint.best", "evaluate_every", "evaluation.splits", "evaluation.views",
    "evaluation.sizes", "image_size", "loss.name", "optimizer.ema_decay", "task",
)  # fmt: skip


def _best(
    metric: str,
    every: int,
    splits: Any,
    views: Any,
    sizes: Any,
    image_size: int,
    loss: str,
    ema_decay: float,
    task: str,
) -> str | None:
    if not metric or task == "tagger":  # it chooses some of these later, and they are checked then
        return None
    if not splits:
        return ": nothing is evaluated: give a split in evaluation.splits"
    if not every:
        return ": evaluate_every=0 evaluates at the end only, so there is nothing to choose from"
    known = metric_names(
        splits=splits,
        views=views,
        sizes=sizes or (image_size,),
        single_label=loss == "softmax",
        has_ema=ema_decay > 0,
    )
    if metric in known:
        return None
    listed = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if known[12:] else "")
    return f" is none of the metrics of this run's evaluations, {listed}{nearest(metric, known)}"


def _patience_of_suspects(patience: int, task: str) -> str | None:
    if not patience or task != "suspects":
        return None
    return (
        ": the trainings without a fold are not evaluated before their end, so they cannot end "
        "early: leave it at 0, and set their length by epochs or minutes"
    )


def _patience(patience: int, metric: str) -> str | None:
    if not patience or metric:
        return None
    return ": name the metric that must improve in checkpoint.best, such as 'val/mAP'"


def _one_length(total: int, other: float) -> str | None:
    return ": give the length once, as this or as total_steps" if total and other else None


def _no_steps(total: int, init_from: str) -> str | None:
    if total or init_from:
        return None
    return ": give 1 or more; 0 is for evaluating the weights of init_from only, which is empty"


RELATIONS = (
    Relation(("group_size", "batch_size", "resize"), _group_size),
    *_loss_groups("weighted"),
    *_loss_groups("two_way"),
    Relation(("loss.positive_weight", "loss.name"), _positive_weight),
    Relation(("accumulate", "group_size", "batch_size", "resize"), _accumulate),
    Relation(("resize",), _resize_steps),
    Relation(("resize", "batch_size", "loss.name", "data.order"), _same_batch),
    Relation(("group_size", "batch_size", "augmentation.mixup", "augmentation.cutmix"), _mixing),
    Relation(("model.stage_widths", "model.stage_sizes"), _widths),
    *map(_warmup_of, ("cosine", "linear", "one_cycle")),
    Relation(("schedule.constant.warmup_steps", "total_steps", "schedule.name"), _constant),
    Relation(("schedule.pretraining.warmup_steps", "total_steps", "schedule.name"), _pretraining),
    Relation(
        (
            "schedule.pretraining.warmup_decay_factor",
            "schedule.pretraining.warmup_learning_rate",
            "schedule.pretraining.warmup_decay_steps",
            "schedule.pretraining.warmup_steps",
            "schedule.name",
        ),
        _warmup_rises,
    ),
    Relation(("data.fold", "data.order"), _fold),
    Relation(_BEST_DEPENDS_ON, _best),
    Relation(("early_stopping.patience", "checkpoint.best"), _patience),
    Relation(("early_stopping.patience", "task"), _patience_of_suspects),
    Relation(("profile.steps",), _profile),
    Relation(("total_steps", "init_from"), _no_steps),
    *(Relation((name, "total_steps"), _one_length) for name in ("epochs", "minutes")),
)
