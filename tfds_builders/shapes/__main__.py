# SPDX-License-Identifier: BSD-3-Clause
"""`mlimages data build shapes`, as `python -m tfds_builders.shapes`."""

import sys
from collections.abc import Sequence

from mlimages_jax import command_line


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command, see `command_line.run`."""
    place = "tfds_builders.shapes.command:build_shapes"
    words = sys.argv[1:] if arguments is None else arguments
    command_line.run(place, words, program="python -m tfds_builders.shapes")


if __name__ == "__main__":
    main()
