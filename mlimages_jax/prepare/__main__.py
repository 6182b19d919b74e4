# SPDX-License-Identifier: BSD-3-Clause
"""From published lists to verified images and lists: `python -m mlimages_jax.prepare --help`.

Every command has a --help of its own, with an example.
"""

import sqlite3
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mlimages_jax import command_line
from mlimages_jax.files.text_files import TextFileError
from mlimages_jax.labels.hierarchy import HierarchyError
from mlimages_jax.labels.lists import LabelListError
from mlimages_jax.labels.same_names import AmbiguousNameError
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.check.command import check
from mlimages_jax.prepare.co_occurrence.command import co_occurrence
from mlimages_jax.prepare.coverage import coverage
from mlimages_jax.prepare.download.command import download
from mlimages_jax.prepare.extract.command import extract
from mlimages_jax.prepare.imports.coco import import_coco
from mlimages_jax.prepare.imports.door import import_any
from mlimages_jax.prepare.imports.open_images import import_open_images
from mlimages_jax.prepare.imports.table import import_table
from mlimages_jax.prepare.imports.tfrecords import import_tfrecords
from mlimages_jax.prepare.label_lists import labels
from mlimages_jax.prepare.manifest import ManifestError
from mlimages_jax.prepare.stats.command import stats

_COMMANDS: dict[str, Callable[..., None]] = {
    "download": download,
    "extract": extract,
    "coverage": coverage,
    "labels": labels,
    "co-occurrence": co_occurrence,
    "stats": stats,
    "check": check,
    "import-tfrecords": import_tfrecords,
}
_IMPORTS: dict[str, Callable[..., None]] = {
    "open-images": import_open_images,
    "coco": import_coco,
    "table": import_table,
    "any": import_any,
}

_INPUTS = {"--train", "--val", "--test", "--descriptions"}  # of imports, whose files are options


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command, see `command_line.run`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["import"] and _names_data(words[1:]):
        words.insert(1, "any")
    app = command_line.group(_COMMANDS, words)
    imports = command_line.group(_IMPORTS, words[1:])
    app.command(imports, name="import", help="Turn other multi-label data into label lists.")
    command_line.run(
        app,
        words,
        program="python -m mlimages_jax.prepare",
        description=__doc__,
        mendable=(
            PrepareError,
            LabelListError,
            HierarchyError,
            TextFileError,
            AmbiguousNameError,
            ManifestError,
            sqlite3.OperationalError,
        ),
    )


def _names_data(words: Sequence[str]) -> bool:
    """Whether `import DIR` is meant: the door that finds out what DIR is, also if it is "coco"."""
    if not words or words[0] in ("-h", "--help"):
        return False
    if words[0] not in _IMPORTS:
        return True
    options = {word.partition("=")[0] for word in words}
    has_input = bool(options & _INPUTS) or (len(words) > 1 and words[1][:1] != "-")
    return Path(words[0]).exists() and not has_input and not options & {"-h", "--help"}


if __name__ == "__main__":
    main()
