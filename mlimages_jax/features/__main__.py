# SPDX-License-Identifier: BSD-3-Clause
"""What exported features are good for: `python -m mlimages_jax.features --help`.

The features are those of configs/export_features.py. Every command has a --help of its own.
"""

import os
import sys
from collections.abc import Callable, Sequence

from tyro.extras import SubcommandApp

from mlimages_jax.feature_files import FeatureFilesError
from mlimages_jax.features import FeaturesError
from mlimages_jax.features.duplicates import duplicates
from mlimages_jax.features.knn import knn
from mlimages_jax.features.probe import probe

_COMMANDS: dict[str, Callable[..., None]] = {
    "knn": knn,
    "probe": probe,
    "duplicates": duplicates,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; what a person can mend ends with a line instead of a traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    is_list = not words or words[0] in ("-h", "--help")
    app = SubcommandApp()
    for name, command in _COMMANDS.items():
        first_line = (command.__doc__ or "").partition("\n")[0]
        app.command(name=name, help=first_line if is_list else None)(command)
    try:
        app.cli(args=words, prog="python -m mlimages_jax.features", description=__doc__)
    except BrokenPipeError:  # `| head` has seen enough; what is left to print has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (FeaturesError, FeatureFilesError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
