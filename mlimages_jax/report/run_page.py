# SPDX-License-Identifier: BSD-3-Clause
"""The page of a run, or of two that are compared."""

from collections.abc import Sequence

from mlimages_jax.report import class_sections, image_sections, run_sections
from mlimages_jax.report.content import Page
from mlimages_jax.report.run_files import Run


def run_page(runs: Sequence[Run]) -> Page:
    """Returns the page.

    Args:
        runs: The run, and one to compare it with if there is one. Images, confusions and
            calibration are those of the first.
    """
    first = runs[0]
    sections = [
        run_sections.summary(runs),
        run_sections.curves(runs),
        *([class_sections.differences(runs)] if len(runs) > 1 else []),
        class_sections.frequency(first),
        image_sections.examples(first),
        class_sections.tree(runs),
        class_sections.extremes(first),
        class_sections.confusions(first),
        image_sections.calibration(first),
        image_sections.suspects(first),
        run_sections.time(runs),
    ]
    title = " and ".join(run.name for run in runs)
    step = "" if first.step is None else f"step {first.step:,}"
    parts = [str(first.folder), *filter(None, (step, first.state))]
    subtitle = f"{', '.join(parts)}."
    problems = [problem for run in runs for problem in run.problems]
    return Page(title, subtitle, problems, sections)
