# SPDX-License-Identifier: BSD-3-Clause
"""`mlimages data build image-folder`, as `python -m tfds_builders.image_folder`."""

from collections.abc import Sequence

from tfds_builders.images import command


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command, see `command_line.run`."""
    place = "tfds_builders.image_folder.command:build_image_folder"
    command.main(place, arguments, program="python -m tfds_builders.image_folder")


if __name__ == "__main__":
    main()
