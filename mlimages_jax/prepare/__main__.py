# SPDX-License-Identifier: BSD-3-Clause
"""From published lists to verified pictures and lists: `python -m mlimages_jax.prepare --help`.

Every command has a --help of its own, with an example.
"""

import os
import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence

from tyro.extras import SubcommandApp

from mlimages_jax.labels.hierarchy import HierarchyError
from mlimages_jax.labels.lists import LabelListError
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.check.command import check
from mlimages_jax.prepare.co_occurrence.command import co_occurrence
from mlimages_jax.prepare.coverage import coverage
from mlimages_jax.prepare.download.command import download
from mlimages_jax.prepare.extract.command import extract
from mlimages_jax.prepare.imports.coco import import_coco
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
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; what a person can mend ends with a line instead of a traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    app = _group(_COMMANDS, words)
    imports = _group(_IMPORTS, words[1:])
    app.command(imports, name="import", help="Turn other multi-label data into label lists.")
    try:
        app.cli(args=words, prog="python -m mlimages_jax.prepare", description=__doc__)
    except BrokenPipeError:  # `| head` has seen enough; what is left to print has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (
        PrepareError, LabelListError, HierarchyError, ManifestError, OSError,
        sqlite3.OperationalError,
    ) as error:  # fmt: skip
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _group(commands: Mapping[str, Callable[..., None]], words: Sequence[str]) -> SubcommandApp:
    """Commands by name; asked for their list, each says only the first line of its help."""
    is_list = not words or words[0] in ("-h", "--help")
    app = SubcommandApp()
    for name, command in commands.items():
        first_line = (command.__doc__ or "").partition("\n")[0]
        app.command(name=name, help=first_line if is_list else None)(command)
    return app


if __name__ == "__main__":
    main()
