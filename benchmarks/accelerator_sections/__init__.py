# SPDX-License-Identifier: BSD-3-Clause
"""The measurements of `accelerator.py`.

Each is a generator of `Section`s, every one more complete than the last, so that one that is
stopped leaves what it has. Each runs in a process of its own: its memory is free again for the
next, and its failure is its own.
"""

from typing import Any, NamedTuple

# Set for every process of ours: peers share the device, and a program is compiled once a run.
ENVIRONMENT = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1",
}


class Settings(NamedTuple):
    """What the command line says, for all sections.

    Attributes:
        depth: of the network.
        size: of the images, pixels.
        batch: images a step.
        batches: further batch sizes for the table of batches.
        classes: C.
        dtype: of the computation.
        steps: of a round.
        rounds: whose median counts.
        output: folder for traces and programs.
        golden: folder with the reference numbers of the original code; None: not at hand.
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
        """Arguments for `peers.ours_step`, with changes."""
        common = {"group_size": 32, "variants": ["full"], "ideas": [], "remat": False}
        names = ("depth", "size", "batch", "classes", "dtype", "steps")
        return common | {name: getattr(self, name) for name in names} | changes


class Section(NamedTuple):
    """What a measurement found.

    Attributes:
        table: Markdown, for people.
        values: JSON, for programs.
    """

    table: str
    values: dict[str, Any]


def table(header: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = ["| " + " | ".join(header) + " |", "|:--|" + "---:|" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])
