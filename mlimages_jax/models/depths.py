# SPDX-License-Identifier: BSD-3-Clause
"""The residual networks that have a name: blocks a stage, by depth.

A depth counts the layers with weights: a bottleneck block has three, stem and classifier one each.
Depths 18 and 34 are missing: they are made of other blocks.
"""

STAGE_SIZES = {
    14: (1, 1, 1, 1),
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
STAGE_WIDTHS = (256, 512, 1024, 2048)  # of all of them
STEM_WIDTH = 64
STEM_KERNEL = 7
