# SPDX-License-Identifier: BSD-3-Clause
"""The commands `mlimages features`, also as `python -m mlimages_jax.features`."""

import sys
from collections.abc import Sequence
from typing import Any

from mlimages_jax import command_line

_HERE = "mlimages_jax.features"
COMMANDS = command_line.Group(
    """Evaluate exported features, and find near-duplicates with them.

The features are those of `mlimages export`. Every command has its own --help, with
an example.
""",
    {
        "knn": f"{_HERE}.evaluate.knn:knn",
        "probe": f"{_HERE}.evaluate.probe:probe",
        "duplicates": f"{_HERE}.duplicates.command:duplicates",
    },
)


def main(arguments: Sequence[str] | None = None) -> Any:
    """Runs one command, see `command_line.run`."""
    words = sys.argv[1:] if arguments is None else arguments
    return command_line.run(COMMANDS, words, program=f"python -m {_HERE}")


if __name__ == "__main__":
    main()
