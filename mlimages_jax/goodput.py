# SPDX-License-Identifier: BSD-3-Clause
"""The command `python -m mlimages_jax.goodput WORKDIR`; what it does is in `monitoring.goodput`."""

import sys

from mlimages_jax.monitoring.goodput import main

if __name__ == "__main__":
    main(sys.argv[1:])
