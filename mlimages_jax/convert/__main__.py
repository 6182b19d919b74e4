# SPDX-License-Identifier: BSD-3-Clause
"""The commands `mlimages convert`, also as `python -m mlimages_jax.convert`."""

import sys
from collections.abc import Sequence
from typing import Any

from mlimages_jax import command_line

_HERE = "mlimages_jax.convert"
COMMANDS = command_line.Group(
    """Convert checkpoints from and to other formats.

Every command has its own --help, with an example.
""",
    {
        "from-tensorflow": f"{_HERE}.from_tensorflow:from_tensorflow",
        "to-tensorflow": f"{_HERE}.to_tensorflow:to_tensorflow",
        "to-safetensors": f"{_HERE}.safetensors_file:to_safetensors",
        "from-safetensors": f"{_HERE}.safetensors_file:from_safetensors",
        "to-torch": f"{_HERE}.to_torch:to_torch",
        "from-torch": f"{_HERE}.from_torch:from_torch",
        "to-onnx": f"{_HERE}.to_onnx:to_onnx",
        "to-stablehlo": f"{_HERE}.to_stablehlo:to_stablehlo",
    },
)


def main(arguments: Sequence[str] | None = None) -> Any:
    """Runs one command, see `command_line.run`."""
    words = sys.argv[1:] if arguments is None else arguments
    return command_line.run(COMMANDS, words, program=f"python -m {_HERE}")


if __name__ == "__main__":
    main()
