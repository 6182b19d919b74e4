# SPDX-License-Identifier: BSD-3-Clause
"""Converts checkpoints from and to other formats: `mlimages convert`.

All conversions go through a flat dict of the network's arrays, by names such as
"params/stage0_block0/conv1/kernel" and "batch_stats/final_norm/mean": see `layout`.
"""


class ConvertError(Exception):
    """An error that the user can fix; the message names the file and the variables."""
