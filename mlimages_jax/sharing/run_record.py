# SPDX-License-Identifier: BSD-3-Clause
"""Metrics and commands of a training from the files of its workdir, for the card of the model."""

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from etils import epath

from mlimages_jax.evaluation.class_details import HEAD_ABOVE, TAIL_BELOW
from mlimages_jax.files.remote import is_remote, read_json_lines
from mlimages_jax.monitoring.commands import COMMANDS_FILE
from mlimages_jax.settings.metric_names import with_kind

_Z = 1.96  # standard deviations of a 95% interval
_VERSION = re.compile(r"\d+\.\d+\.\d+")


class Estimate(NamedTuple):
    """A metric with its 95% interval.

    Attributes:
        value: The metric.
        low: Lower end; nan if unknown.
        high: Upper end; nan if unknown.
    """

    value: float
    low: float = math.nan
    high: float = math.nan


class Group(NamedTuple):
    """Classes with about as many positive images in training.

    Attributes:
        name: What they have in common.
        classes: Their number.
        precision: Mean of their average precision.
    """

    name: str
    classes: int
    precision: Estimate


class RunRecord(NamedTuple):
    """Metrics, classes and commands of a training.

    Attributes:
        evaluation: Name of the evaluation, such as "val"; "" if the step was not evaluated.
        metrics: Its metrics; those without a number are left out.
        classes: Rows of per_class.tsv; empty if it is of another step.
        commands: Command lines of the training, the first one first.
    """

    evaluation: str
    metrics: dict[str, float]
    classes: Sequence[dict[str, str]]
    commands: Sequence[str]


def read(workdir: epath.Path, *, step: int) -> RunRecord:
    """Reads the files of a workdir; those that are missing say nothing.

    Args:
        workdir: Folder of a training.
        step: Step of the checkpoint that is described.
    """
    named: dict[str, Any] = {}
    for row in read_json_lines(workdir / "metrics.jsonl"):
        if row.get("step") == step:
            named |= row  # the last line of a step counts
    evaluation, metrics = _best_known(named)
    commands = [row.get("command", "") for row in read_json_lines(workdir / COMMANDS_FILE)]
    return RunRecord(evaluation, metrics, _classes(workdir, metrics), list(dict.fromkeys(commands)))


def overall(record: RunRecord) -> dict[str, Estimate]:
    """Returns the main metrics with intervals.

    Those of top-1 and top-5 are Wilson's for a fraction of images. That of mAP is the mean of the
    classes' own intervals: it would be exact if all classes erred together, and else is too wide.
    """
    found: dict[str, Estimate] = {}
    for name, value in record.metrics.items():
        if name in ("top1", "top5") and record.metrics.get("examples"):
            found[name] = Estimate(value, *_wilson(value, record.metrics["examples"]))
        elif name == "mAP":
            found[name] = _mean(record.classes)._replace(value=value)
        elif name in ("loss", "f1@5", "hierarchical_f1", "calibration_error", "balanced_mAP"):
            found[name] = Estimate(value)
    return found


def by_frequency(record: RunRecord) -> list[Group]:
    """Returns the groups of classes by positive images in training, frequent ones first."""
    counted = [(int(row["train_positives"]), row) for row in record.classes if _has(row)]
    groups = [
        (f"more than {HEAD_ABOVE}", lambda count: count > HEAD_ABOVE),
        (f"{TAIL_BELOW} to {HEAD_ABOVE}", lambda count: TAIL_BELOW <= count <= HEAD_ABOVE),
        (f"fewer than {TAIL_BELOW}", lambda count: count < TAIL_BELOW),
    ]
    found = []
    for name, belongs in groups:
        rows = [row for count, row in counted if belongs(count)]
        if rows:
            found.append(Group(name, len(rows), _mean(rows)))
    return found


def public(value: Any) -> Any:
    """Returns JSON values in which paths of this machine are cut to their last name.

    A folder named by a version keeps its parent: /home/me/data/birds/1.0.0 is birds/1.0.0.
    """
    if isinstance(value, dict):
        return {name: public(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [public(one) for one in value]
    if not isinstance(value, str):
        return value
    return " ".join(_public_word(word) for word in value.split(" "))


def _public_word(word: str) -> str:
    option, equals, path = word.rpartition("=")
    if not (path.startswith(("/", "~", "'/")) or is_remote(path)) or path.startswith("hf://"):
        return word
    parts = PurePosixPath(path.strip("'")).parts
    kept = parts[-2:] if parts and _VERSION.fullmatch(parts[-1]) else parts[-1:]
    return f"{option}{equals}{'/'.join(kept)}"


def _best_known(named: dict[str, Any]) -> tuple[str, dict[str, float]]:
    """The first evaluation of a step, of the EMA weights if there are any, as these are shared."""
    evaluations: dict[str, dict[str, float]] = {}
    for name, value in named.items():
        evaluation, slash, metric = name.rpartition("/")
        if slash and isinstance(value, int | float):
            evaluations.setdefault(evaluation, {})[metric] = float(value)
    evaluated = [name for name in evaluations if "examples" in evaluations[name]]
    if not evaluated:
        return "", {}
    first = evaluated[0]
    shared = with_kind(first, ema=True)
    return first, evaluations[shared if shared in evaluations else first]


def _classes(workdir: epath.Path, metrics: dict[str, float]) -> list[dict[str, str]]:
    """Rows of per_class.tsv, if it was written with these metrics."""
    try:
        whole = json.loads((workdir / "metrics.json").read_text())
        table = (workdir / "per_class.tsv").read_text()
    except (FileNotFoundError, ValueError):
        return []
    if not metrics or whole.get("loss") != metrics.get("loss"):
        return []  # of the last step, not of this one
    return list(csv.DictReader(io.StringIO(table), delimiter="\t", quoting=csv.QUOTE_NONE))


def _has(row: dict[str, str]) -> bool:
    return bool(row.get("average_precision") and row.get("train_positives"))


def _mean(rows: Sequence[dict[str, str]]) -> Estimate:
    known = [row for row in rows if row.get("average_precision")]
    if not known:
        return Estimate(math.nan)
    columns = ("average_precision", "ap_low", "ap_high")  # the last two since version 0.2
    values = [[float(row.get(name) or math.nan) for name in columns] for row in known]
    return Estimate(*(sum(column) / len(known) for column in zip(*values, strict=True)))


def _wilson(fraction: float, images: float) -> tuple[float, float]:
    """Wilson's interval of a fraction of images."""
    scale = 1 + _Z**2 / images
    centre = fraction + _Z**2 / (2 * images)
    half = _Z * math.sqrt(fraction * (1 - fraction) / images + _Z**2 / (4 * images**2))
    return (centre - half) / scale, (centre + half) / scale
