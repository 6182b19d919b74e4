# SPDX-License-Identifier: BSD-3-Clause
"""`mlimages data build ml-images`, as `python -m tfds_builders.ml_images`."""

from collections.abc import Sequence

from tfds_builders.images import command


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command, see `command_line.run`."""
    place = "tfds_builders.ml_images.command:build_ml_images"
    command.main(place, arguments, program="python -m tfds_builders.ml_images")


if __name__ == "__main__":
    main()
