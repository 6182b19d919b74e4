# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints from and to other formats: `python -m mlimages_jax.convert --help`.

Every command has a --help of its own, with an example.
"""

import sys
from collections.abc import Callable, Sequence

from mlimages_jax import command_line
from mlimages_jax.checkpoints.saved_step import DamagedCheckpointError
from mlimages_jax.convert import ConvertError
from mlimages_jax.convert.from_tensorflow import from_tensorflow
from mlimages_jax.convert.safetensors_file import from_safetensors, to_safetensors
from mlimages_jax.convert.to_stablehlo import to_stablehlo
from mlimages_jax.convert.to_tensorflow import to_tensorflow
from mlimages_jax.convert.to_torch import to_torch
from mlimages_jax.labels.hierarchy import HierarchyError

_COMMANDS: dict[str, Callable[..., None]] = {
    "from-tensorflow": from_tensorflow,
    "to-tensorflow": to_tensorflow,
    "to-safetensors": to_safetensors,
    "from-safetensors": from_safetensors,
    "to-torch": to_torch,
    "to-stablehlo": to_stablehlo,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command, see `command_line.run`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    app = command_line.group(_COMMANDS, words)
    command_line.run(
        app,
        words,
        program="python -m mlimages_jax.convert",
        description=__doc__,
        mendable=(ConvertError, DamagedCheckpointError, HierarchyError),
    )


if __name__ == "__main__":
    main()
