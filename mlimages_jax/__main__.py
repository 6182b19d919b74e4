# SPDX-License-Identifier: BSD-3-Clause
"""`python -m mlimages_jax` is the command `mlimages`."""

from mlimages_jax.cli.front import main

if __name__ == "__main__":
    main()
