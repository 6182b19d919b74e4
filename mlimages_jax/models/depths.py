# SPDX-License-Identifier: BSD-3-Clause
"""The standard bottleneck ResNets: number of blocks per stage, by depth.

The depth counts layers with weights: three in each bottleneck block, and one each in the stem and
the classifier. Depths 18 and 34 are missing because they use a different block.
"""

STAGE_SIZES = {
    14: (1, 1, 1, 1),
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
STAGE_WIDTHS = (256, 512, 1024, 2048)  # for every depth
STEM_WIDTH = 64
STEM_KERNEL = 7
