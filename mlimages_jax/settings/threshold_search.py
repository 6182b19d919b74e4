# SPDX-License-Identifier: BSD-3-Clause
"""Settings of the search for thresholds, shared by the task `thresholds` and trainings."""

from dataclasses import dataclass
from typing import Literal

from mlimages_jax.metrics.thresholds import KAPPA
from mlimages_jax.settings.fields import setting
from mlimages_jax.settings.rules import Choice, Number


@dataclass(frozen=True, kw_only=True)
class ThresholdSearch:
    """How thresholds are chosen, see mlimages_jax/metrics/thresholds.py."""

    objective: Literal["f1", "precision", "recall"] = setting(
        Choice(("f1", "precision", "recall")),
        "f1 is the highest F1 of each class; precision is the most recall, and recall the most "
        "precision, with at least `wanted` of what is named.",
        default="f1",
    )
    wanted: float = setting(
        Number(0.0, 1.0, above=True), "The precision or recall asked for.", default=0.9
    )
    kappa: float = setting(
        Number(0.0),
        "Positives of a class at which its own threshold counts as much as that of all classes "
        "together; rarer classes are drawn towards the latter. 0: not at all.",
        default=KAPPA,
    )
