# SPDX-License-Identifier: BSD-3-Clause
"""How different kinds of chips work through the network: what `estimate` assumes of them.

No vendor states these figures. They come from a profile, from programs that XLA compiled for chips
that were not there, and from a published run; docs/scaling.md derives them ("What a chip reaches")
and compares the resulting plans with published rates.
"""

from typing import NamedTuple


class Kind(NamedTuple):
    """One kind of chip.

    Attributes:
        traffic: Bytes of memory traffic in a step for every activation that it would keep without
            remat, in bfloat16. Without the operands of convolutions where those have turns of their
            own.
        reached: Fraction of the stated bandwidth at which they move.
        utilisation: Fraction of the peak that arithmetic reaches.
        in_turn: Whether arithmetic and memory traffic take turns, or overlap.
    """

    traffic: float
    reached: float
    utilisation: float
    in_turn: bool


# Convolutions are kernels of their own. On an H200 (ResNet-101, 256 images of 224 pixels) they took
# 26.4 ms, 46% of the peak; the other 37.7 ms of a step went into the 13.7 bytes an activation that
# the compiled program moves in its other kernels.
GPU = Kind(traffic=13.7, reached=0.64, utilisation=0.46, in_turn=True)
# TPUs compute and load at once. Four TPU v3 trained ResNet-50 at 1,863 images/s each in MLPerf 0.5,
# which is 37.5% of their peak, or 21.2 bytes an activation at their stated bandwidth.
TPU_V3 = Kind(traffic=21.2, reached=1.0, utilisation=0.375, in_turn=False)
# The compiler's own estimates for ResNet-101 and 64 images, 65.5 ms on a v5e and 30.3 ms on a v5p,
# at their stated bandwidths. Nothing was found that was measured.
TPU_V5E = TPU_V3._replace(traffic=25.4)
TPU_V5P = TPU_V3._replace(traffic=39.7)
