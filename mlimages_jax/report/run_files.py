# SPDX-License-Identifier: BSD-3-Clause
"""Reads what a run has left in its workdir, also while it is going on.

Every file may be missing, and half a line at the end of one is skipped: the run may have been
killed, or be writing it at this moment.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from mlimages_jax.evaluation import examples_file
from mlimages_jax.evaluation.examples_file import Example
from mlimages_jax.files import paths
from mlimages_jax.monitoring import curves, goodput
from mlimages_jax.report.class_table import ClassTable
from mlimages_jax.report.content import ReportError
from mlimages_jax.report.tables import Row, read_table
from mlimages_jax.settings import flatten

SUSPECTS = {"wrong": "wrong_labels", "missing": "missing_labels"}
_MADE_BY_US = (
    "config.json", "metrics.jsonl", "goodput.jsonl", "per_class.tsv", "results.jsonl",
    *(f"{name}.tsv" for name in SUSPECTS.values()),
)  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run as its files describe it.

    Attributes:
        folder: The workdir.
        series: Values by step, by the name of the metric.
        runs: The clock of every start, see `monitoring.goodput`.
        settings: Values by dotted name; empty without config.json.
        values: Metrics of the evaluation that `classes` is from.
        evaluated: The folder of that evaluation, relative to the workdir.
        classes: Numbers of the classes; None without per_class.tsv.
        confusions: Rows of confusion.tsv.
        calibration: Rows of calibration.tsv.
        examples: Images with predictions.
        suspects: Rows of the tables of suspect labels, by kind.
        problems: What could not be read, in sentences.
    """

    folder: epath.Path
    series: Mapping[str, Mapping[int, float]]
    runs: list[goodput.Line]
    settings: Mapping[str, Any]
    values: Mapping[str, float]
    evaluated: epath.Path
    classes: ClassTable | None
    confusions: Sequence[Row]
    calibration: Sequence[Row]
    examples: Sequence[Example]
    suspects: Mapping[str, Sequence[Row]]
    problems: Sequence[str]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.folder.name

    @property
    def step(self) -> int | None:
        """Updates done, as far as the files say."""
        logged = [max(values) for values in self.series.values() if values]
        ran = [run["step"] for run in self.runs]
        return max([*logged, *ran], default=None)

    @property
    def state(self) -> str:
        """State after the last start, "finished" or "not finished"; "" if it is unknown."""
        if not self.runs:
            return ""
        return "finished" if self.runs[-1].get("finished") else "not finished"


def read_run(workdir: str) -> Run:
    """Reads a workdir of a training, an evaluation or a search for suspect labels.

    Raises:
        ReportError: There is no such folder, or it is no workdir.
    """
    folder = epath.Path(paths.absolute(workdir))
    if not folder.is_dir():
        raise ReportError(f"{workdir}: there is no such folder; give the workdir of a run")
    evaluated = _latest_evaluation(folder)
    if not any((folder / name).exists() for name in _MADE_BY_US) and evaluated == folder:
        raise ReportError(
            f"{workdir} has none of {', '.join(_MADE_BY_US)}: give the workdir of a training, of "
            "`mlimages evaluate` or of `mlimages suspects`"
        )
    problems: list[str] = []
    classes = ClassTable.read(evaluated, folder, problems)
    return Run(
        folder=folder,
        series=curves.read_series(folder / "metrics.jsonl"),
        runs=_clocks(folder / "goodput.jsonl"),
        settings=flatten(_json_object(folder / "config.json", problems)),
        values={
            name: value
            for name, value in _json_object(evaluated / "metrics.json", problems).items()
            if isinstance(value, int | float)
        },
        evaluated=evaluated,
        classes=classes,
        confusions=read_table(evaluated / "confusion.tsv"),
        calibration=read_table(evaluated / "calibration.tsv"),
        examples=_examples(evaluated / examples_file.FILE_NAME, classes, problems),
        suspects={kind: read_table(folder / f"{name}.tsv") for kind, name in SUSPECTS.items()},
        problems=problems,
    )


def _latest_evaluation(folder: epath.Path) -> epath.Path:
    """Returns the folder of per_class.tsv: the workdir itself, or E/<step>/<evaluation>."""
    if (folder / "per_class.tsv").exists():
        return folder
    steps = sorted(
        (one for one in folder.iterdir() if one.name.isdecimal()), key=lambda one: int(one.name)
    )
    found = [
        table.parent for step in steps for table in sorted(step.glob("*/per_class.tsv"), key=str)
    ]
    return found[-1] if found else folder


def _clocks(path: epath.Path) -> list[goodput.Line]:
    """Returns the last line of every start; none if a line is not what `goodput` writes."""
    try:
        runs = goodput.read(path)
        goodput.summary(runs)
    except (KeyError, TypeError, AttributeError):
        return []
    return runs


def _json_object(path: epath.Path, problems: list[str]) -> dict[str, Any]:
    """Returns the object in a file; {} if there is none, with a sentence if it is malformed."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        problems.append(f"{path} is no JSON and was left out: {error}.")
        return {}
    return value if isinstance(value, dict) else {}


def _examples(
    path: epath.Path, classes: ClassTable | None, problems: list[str]
) -> Sequence[Example]:
    if classes is None or not path.exists():
        return ()
    try:
        return examples_file.read(path, num_classes=len(classes.ids))
    except examples_file.ExamplesError as error:
        problems.append(f"{error}.")
        return ()
