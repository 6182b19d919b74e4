# SPDX-License-Identifier: BSD-3-Clause
"""The record of evaluations in a checkpoint folder, from which the best checkpoint follows.

The best one is not marked but computed: of the checkpoints that exist, the one whose evaluation is
best, the earliest of equal ones. So a step that is damaged and set aside, or deleted, gives way to
the next best, and no mark can point to nothing.
"""

import json
import math
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import google_crc32c
from absl import logging
from etils import epath

from mlimages_jax.distributed import collectives
from mlimages_jax.files.remote import write_text
from mlimages_jax.settings.metric_names import lower_is_better

FILE = "best.json"  # beside the steps
_CHECKSUM = "crc32c"


class BestRecordError(ValueError):
    """The record cannot be read, or does not match its checksum."""


class Evaluated(NamedTuple):
    """The metric of a step; nan if it was not a finite number."""

    step: int
    value: float


class BestRecord(NamedTuple):
    """The results of evaluations, in the order of steps.

    Attributes:
        metric: Name of the metric, such as "val/mAP".
        evaluations: Steps and their values.
    """

    metric: str
    evaluations: tuple[Evaluated, ...] = ()

    def with_value(self, step: int, value: float) -> "BestRecord":
        """Returns the record with an evaluation added; it replaces those of its step and later."""
        row = Evaluated(step, value if math.isfinite(value) else math.nan)
        return self._replace(evaluations=(*self.up_to(step - 1).evaluations, row))

    def up_to(self, step: int) -> "BestRecord":
        """Returns the record as it was at a step, for a run that resumes there."""
        return self._replace(evaluations=tuple(row for row in self.evaluations if row.step <= step))

    def best(self, steps: Collection[int] | None = None) -> Evaluated | None:
        """Returns the best evaluation of the given steps, or of all; the earliest of equal ones."""
        rows = (row for row in self.evaluations if steps is None or row.step in steps)
        return _best(rows, lower=lower_is_better(self.metric))

    def since_best(self) -> int:
        """Returns the number of evaluations after the best one."""
        best = self.best()
        return sum(best is None or row.step > best.step for row in self.evaluations)


def _best(rows: Iterable[Evaluated], *, lower: bool) -> Evaluated | None:
    known = (row for row in rows if not math.isnan(row.value))
    # min and max return the first of equal ones.
    choose = min if lower else max
    return choose(known, key=lambda row: row.value, default=None)


def read(folder: epath.Path) -> BestRecord | None:
    """Reads the record in a checkpoint folder; returns None if there is none.

    Raises:
        BestRecordError: It is damaged.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_bytes())
        checksum = content.pop(_CHECKSUM)
        if checksum != _checksum(content):
            raise ValueError("it does not match its checksum")
        rows = [Evaluated(step, math.nan if v is None else v) for step, v in content["evaluations"]]
        return BestRecord(content["metric"], tuple(rows))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BestRecordError(f"{path} is damaged: {error}") from error


def write(folder: epath.Path, record: BestRecord) -> None:
    """Writes the record, atomically."""
    # JSON has no nan.
    rows = [[step, None if math.isnan(value) else value] for step, value in record.evaluations]
    content = {"metric": record.metric, "evaluations": rows}
    write_text(folder / FILE, json.dumps(content | {_CHECKSUM: _checksum(content)}))


def read_for_run(folder: epath.Path) -> BestRecord | None:
    """Reads the record on process 0 for all processes; a damaged one is renamed and logged."""
    rows: Any = None
    if collectives.process_number() == 0:
        try:
            rows = read(folder)
        except BestRecordError as error:
            aside = folder / f"{FILE}.damaged"
            (folder / FILE).rename(aside)
            logging.error(
                "%s. Moved to %s: checkpoints evaluated so far are no longer compared, and only "
                "the latest of them are kept", error, aside.name,
            )  # fmt: skip
    # As JSON, a record is a list of lists, whose nan Python's json reads and writes too.
    rows = collectives.of_process_0(rows)
    if rows is None:
        return None
    metric, evaluations = rows
    return BestRecord(metric, tuple(Evaluated(*row) for row in evaluations))


def _checksum(content: dict[str, Any]) -> str:
    # Not sorted: the content was just read or made, with its keys in this order.
    return f"{google_crc32c.value(json.dumps(content).encode()):08x}"
