# SPDX-License-Identifier: BSD-3-Clause
"""What exported features are good for: `python -m mlimages_jax.features --help`.

The features are those of configs/export_features.py. Every command has a --help of its own.
"""

import sys
from collections.abc import Callable, Sequence

from mlimages_jax import command_line
from mlimages_jax.features import FeaturesError
from mlimages_jax.features.duplicates.command import duplicates
from mlimages_jax.features.evaluate.knn import knn
from mlimages_jax.features.evaluate.probe import probe
from mlimages_jax.features.export.feature_files import FeatureFilesError
from mlimages_jax.files.text_files import TextFileError

_COMMANDS: dict[str, Callable[..., None]] = {
    "knn": knn,
    "probe": probe,
    "duplicates": duplicates,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command, see `command_line.run`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    app = command_line.group(_COMMANDS, words)
    command_line.run(
        app,
        words,
        program="python -m mlimages_jax.features",
        description=__doc__,
        mendable=(FeaturesError, FeatureFilesError, TextFileError),
    )


if __name__ == "__main__":
    main()
