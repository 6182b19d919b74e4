# SPDX-License-Identifier: BSD-3-Clause
"""The command line of data preparation: `python -m mlimages_jax.prepare --help`."""

import sqlite3
import sys
from collections.abc import Sequence

from tyro.extras import SubcommandApp

from mlimages_jax.labels.hierarchy import HierarchyError
from mlimages_jax.labels.lists import LabelListError
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.co_occurrence import co_occurrence
from mlimages_jax.prepare.coverage import coverage
from mlimages_jax.prepare.download import download
from mlimages_jax.prepare.extract import extract
from mlimages_jax.prepare.label_lists import labels
from mlimages_jax.prepare.manifest import ManifestError
from mlimages_jax.prepare.stats import stats

app = SubcommandApp()
app.command(download)
app.command(extract)
app.command(coverage)
app.command(labels)
app.command(co_occurrence)
app.command(stats)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; what a person can mend ends with a line instead of a traceback."""
    try:
        app.cli(args=arguments, prog="python -m mlimages_jax.prepare", description=__doc__)
    except (
        PrepareError, LabelListError, HierarchyError, ManifestError, OSError,
        sqlite3.OperationalError,
    ) as error:  # fmt: skip
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
