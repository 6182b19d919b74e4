# SPDX-License-Identifier: BSD-3-Clause
"""The commands `mlimages data`, also as `python -m mlimages_jax.prepare`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlimages_jax import command_line
from mlimages_jax.command_line import Group

_HERE = "mlimages_jax.prepare"
IMPORTS = Group(
    """Turn other data into label lists, or into a data set at once.

    mlimages data import FOLDER_OR_FILE --dry-run

reports what the data are and how they are interpreted. The other commands are for one kind each.
""",
    {
        "any": f"{_HERE}.imports.door:import_any",
        "coco": f"{_HERE}.imports.coco:import_coco",
        "open-images": f"{_HERE}.imports.open_images:import_open_images",
        "table": f"{_HERE}.imports.table:import_table",
        "tfrecords": f"{_HERE}.imports.tfrecords:import_tfrecords",
    },
)
COMMANDS = Group(
    """Get, check and describe images and their labels.

Every command has its own --help, with an example.
""",
    {
        "download": f"{_HERE}.download.command:download",
        "extract": f"{_HERE}.extract.command:extract",
        "import": IMPORTS,
        "labels": f"{_HERE}.label_lists:labels",
        "coverage": f"{_HERE}.coverage:coverage",
        "stats": f"{_HERE}.stats.command:stats",
        "cooccurrence": f"{_HERE}.co_occurrence.command:co_occurrence",
        "check": f"{_HERE}.check.command:check",
    },
)
# Names of before: the first word behind the program, and what stands for it.
_RENAMED = {"co-occurrence": ["cooccurrence"], "import-tfrecords": ["import", "tfrecords"]}
_INPUTS = {"--train", "--val", "--test", "--descriptions"}  # of imports, whose files are options


def main(arguments: Sequence[str] | None = None, *, program: str | None = None) -> Any:
    """Runs one command, see `command_line.run`."""
    words = with_full_names(sys.argv[1:] if arguments is None else arguments)
    return command_line.run(COMMANDS, words, program=program or f"python -m {_HERE}")


def with_full_names(words: Sequence[str]) -> list[str]:
    """Returns the words with the command's present name, and with the `any` of `import any`."""
    words = list(words)
    words[:1] = _RENAMED.get(words[0], words[:1]) if words else []
    if words[:1] == ["import"] and _names_data(words[1:]):
        words.insert(1, "any")
    return words


def _names_data(words: Sequence[str]) -> bool:
    """Returns whether `import DIR` is meant, also if DIR has the name of a command ("coco")."""
    if not words or words[0] in command_line.HELP:
        return False
    if words[0] not in IMPORTS.commands:
        return True
    # A folder "coco" is imported by `import coco`, unless an input shows that the command is meant.
    options = {word.partition("=")[0] for word in words}
    has_input = bool(options & _INPUTS) or (len(words) > 1 and words[1][:1] != "-")
    return Path(words[0]).exists() and not has_input and options.isdisjoint(command_line.HELP)


if __name__ == "__main__":
    main()
