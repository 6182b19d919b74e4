# SPDX-License-Identifier: BSD-3-Clause
"""The command `mlimages goodput WORKDIR`, also as `python -m mlimages_jax.goodput WORKDIR`."""

from mlimages_jax import command_line, moved

COMMAND = "mlimages_jax.monitoring.goodput:show"

if __name__ != "__main__":
    __getattr__ = moved.getattr_of(__name__)  # names of version 0.1

if __name__ == "__main__":
    import sys

    command_line.run(COMMAND, sys.argv[1:], program="python -m mlimages_jax.goodput")
