# SPDX-License-Identifier: BSD-3-Clause
"""Settings of the search for thresholds, shared by the task `thresholds` and trainings."""

from dataclasses import dataclass
from typing import Literal

from mlimages_jax.metrics.thresholds import KAPPA
from mlimages_jax.settings.fields import setting
from mlimages_jax.settings.rules import Choice, Number


@dataclass(frozen=True, kw_only=True)
class ThresholdSearch:
    """The choice of thresholds, see mlimages_jax/metrics/thresholds.py."""

    objective: Literal["f1", "precision", "recall"] = setting(
        Choice(("f1", "precision", "recall")),
        "f1: the highest F1 of each class; precision: the highest recall with a precision of at "
        "least `wanted`, or the highest precision where that is out of reach; recall: the highest "
        "precision with a recall of at least `wanted`. All of them before `kappa` shrinks them.",
        default="f1",
    )
    wanted: float = setting(
        Number(0.0, 1.0, above=True), "The precision or recall asked for.", default=0.9
    )
    kappa: float = setting(
        Number(0.0),
        "Positives of a class at which its own threshold counts as much as that of all classes "
        "together; rarer classes are shrunk towards the latter. 0: not at all.",
        default=KAPPA,
    )
