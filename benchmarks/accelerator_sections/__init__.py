# SPDX-License-Identifier: BSD-3-Clause
"""The measurements of `accelerator.py`.

Each measurement is a generator of increasingly complete `Section`s, so that partial results survive
if it is stopped. Each runs in its own process: that frees the device's memory for the next one and
contains failures.
"""

from typing import Any, NamedTuple

# For each of our processes: peers share the device, and every program is compiled once per run.
ENVIRONMENT = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1",
    "JAX_TRACEBACK_FILTERING": "off",  # else an error's last line is a notice about this setting
}


class Settings(NamedTuple):
    """The settings from the command line, for all sections.

    Attributes:
        depth: Depth of the network.
        size: Image size in pixels.
        batch: Images per step.
        batches: Further batch sizes for the table of batches.
        classes: Number of classes.
        dtype: Type of the computation.
        steps: Steps per round.
        rounds: Number of rounds; results are their medians.
        output: Folder for traces and programs.
        golden: Folder with the reference numbers of the original code; None if not available.
    """

    depth: int
    size: int
    batch: int
    batches: tuple[int, ...]
    classes: int
    dtype: str
    steps: int
    rounds: int
    output: str
    golden: str | None

    def step(self, **changes: Any) -> dict[str, Any]:
        """Returns the arguments for `peers.ours_step`, with changes."""
        common = {"group_size": 32, "variants": ["full"], "ideas": [], "remat": False}
        names = ("depth", "size", "batch", "classes", "dtype", "steps")
        return common | {name: getattr(self, name) for name in names} | changes


class Section(NamedTuple):
    """The result of a measurement.

    Attributes:
        table: Markdown table.
        values: The same results as JSON values.
    """

    table: str
    values: dict[str, Any]


def table(header: list[str], rows: list[list[Any]]) -> str:
    """Formats a Markdown table; the first column is text, the others are numbers."""
    lines = ["| " + " | ".join(header) + " |", "|:--|" + "---:|" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])
