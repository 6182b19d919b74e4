# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints from and to other formats: `python -m mlimages_jax.convert --help`.

Every command has a --help of its own, with an example.
"""

import sys
from collections.abc import Callable, Sequence

from tyro.extras import SubcommandApp

from mlimages_jax.convert import ConvertError
from mlimages_jax.convert.from_tensorflow import from_tensorflow
from mlimages_jax.convert.safetensors_file import from_safetensors, to_safetensors
from mlimages_jax.convert.to_stablehlo import to_stablehlo
from mlimages_jax.convert.to_tensorflow import to_tensorflow
from mlimages_jax.convert.to_torch import to_torch

_COMMANDS: dict[str, Callable[..., None]] = {
    "from-tensorflow": from_tensorflow,
    "to-tensorflow": to_tensorflow,
    "to-safetensors": to_safetensors,
    "from-safetensors": from_safetensors,
    "to-torch": to_torch,
    "to-stablehlo": to_stablehlo,
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
        app.cli(args=words, prog="python -m mlimages_jax.convert", description=__doc__)
    except (ConvertError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
