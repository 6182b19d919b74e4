# SPDX-License-Identifier: BSD-3-Clause
"""How different kinds of chips work through the network: what `estimate` assumes of them.

The figures come from profiles and from programs that XLA compiled for these chips; docs/scaling.md
derives them and compares the resulting plans with published rates.
"""

from typing import NamedTuple


class Kind(NamedTuple):
    """One kind of chip.

    Attributes:
        traffic: Bytes that a step moves between chip and memory for every activation that it would
            keep without remat, in bfloat16; where arithmetic has turns of its own, without those.
        reached: Fraction of the stated bandwidth at which they move.
        utilisation: Fraction of the peak that arithmetic reaches.
        in_turn: Whether arithmetic and memory traffic take turns, or overlap.
    """

    traffic: float
    reached: float
    utilisation: float
    in_turn: bool


# Convolutions are kernels of their own. On an H200 (ResNet-101, 256 images of 224 pixels) they took
# 26.4 ms, 46% of the peak; the rest of a step of 64.1 ms were kernels limited by memory.
GPU = Kind(traffic=18.2, reached=0.85, utilisation=0.46, in_turn=True)

TPU = Kind(traffic=20.0, reached=1.0, utilisation=0.2, in_turn=False)
