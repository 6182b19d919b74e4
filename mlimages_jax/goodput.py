# SPDX-License-Identifier: BSD-3-Clause
"""The command `mlimages goodput WORKDIR`, also as `python -m mlimages_jax.goodput WORKDIR`."""

from mlimages_jax import command_line

COMMAND = "mlimages_jax.monitoring.goodput:show"

if __name__ == "__main__":
    import sys

    command_line.run(COMMAND, sys.argv[1:], program="python -m mlimages_jax.goodput")
