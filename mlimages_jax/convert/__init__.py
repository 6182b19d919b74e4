# SPDX-License-Identifier: BSD-3-Clause
"""TensorFlow checkpoints of the original in, other formats out: `mlimages convert`.

Between formats all arrays of a network travel in a flat dict, by names such as
"params/stage0_block0/conv1/kernel" and "batch_stats/final_norm/mean": see `layout`.
"""


class ConvertError(Exception):
    """Something the person at the command line can mend; the message names file and variables."""
