# SPDX-License-Identifier: BSD-3-Clause
"""Converts checkpoints from the original's format and to others: `python -m mlimages_jax.convert`.

Between formats the arrays of a network are passed in a flat dict, with names such as
"params/stage0_block0/conv1/kernel" and "batch_stats/final_norm/mean": see `layout`.
"""


class ConvertError(Exception):
    """An error that the user can fix; the message names the file and the variables."""
