# SPDX-License-Identifier: BSD-3-Clause
"""`mlimages data build imagenet`, as `python -m tfds_builders.imagenet`."""

from collections.abc import Sequence

from tfds_builders.images import command


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command, see `command_line.run`."""
    place = "tfds_builders.imagenet.command:build_imagenet"
    command.main(place, arguments, program="python -m tfds_builders.imagenet")


if __name__ == "__main__":
    main()
