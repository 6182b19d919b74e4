# SPDX-License-Identifier: BSD-3-Clause
"""Names the metrics that the evaluations of a training write, such as "val/mAP".

The names follow from the settings, so `checkpoint.best` is checked before anything is computed.
"""

from collections.abc import Sequence

# As `compute` of the metrics returns them, without counts and bounds, which rank no checkpoint.
_SEVERAL_LABELS = (
    "mAP", "precision@5", "recall@5", "f1@5", "precision@10", "recall@10", "f1@10",
    "hierarchical_precision", "hierarchical_recall", "hierarchical_f1", "calibration_error", "loss",
)  # fmt: skip
_ONE_LABEL = ("top1", "top5", "calibration_error", "loss")
_EMA = "_averaged"  # as in metrics.jsonl of version 0.1, so that a resumed run continues its curves


def lower_is_better(name: str) -> bool:
    """Returns whether a metric is a loss or an error; of all others, higher values are better."""
    metric = name.rpartition("/")[2]
    return metric.endswith(("loss", "error"))


def evaluation_name(split: str, view: str, size: int, *, views: int) -> str:
    """Returns the name of an evaluation: its split, and view and size if there are several.

    Args:
        split: Name of the split.
        view: Name of the view.
        size: Image size in pixels.
        views: Number of views and sizes that the split is evaluated with.
    """
    return split if views == 1 else f"{split}_{view}_{size}"


def with_kind(evaluation: str, *, ema: bool) -> str:
    """Returns the name of an evaluation of the raw or the EMA weights."""
    return evaluation + _EMA if ema else evaluation


def raw_and_ema(name: str) -> tuple[str, str]:
    """Returns the names of a metric of the raw and of the EMA weights, from either of them."""
    evaluation, _, metric = name.rpartition("/")
    raw = evaluation.removesuffix(_EMA)
    return f"{raw}/{metric}", f"{with_kind(raw, ema=True)}/{metric}"


def metric_names(
    *,
    splits: Sequence[str],
    views: Sequence[str],
    sizes: Sequence[int],
    single_label: bool,
    has_ema: bool,
) -> list[str]:
    """Returns all names, those of the first evaluation and of the raw weights first.

    Args:
        splits: Splits to evaluate.
        views: Views to evaluate them with.
        sizes: Image sizes in pixels.
        single_label: Whether every image has one class.
        has_ema: Whether the EMA weights are evaluated too.
    """
    count = len(views) * len(sizes)
    return [
        f"{with_kind(evaluation_name(split, view, size, views=count), ema=ema)}/{metric}"
        for split in splits
        for view in views
        for size in sizes
        for ema in ((False, True) if has_ema else (False,))
        for metric in (_ONE_LABEL if single_label else _SEVERAL_LABELS)
    ]
