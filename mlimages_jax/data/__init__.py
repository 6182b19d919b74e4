# SPDX-License-Identifier: BSD-3-Clause
"""From records on disk to batches on devices.

A batch is a dict of arrays with leading dimension B:

    image        uint8 [B, S, S, 3], or float32 in [-1, 1] from the unrounded evaluation view
    labels       int32 [B, L], padded with `NO_LABEL`
    confidences  float32 [B, L]
    mask         bool [B], False for rows that are not examples: an image that could not be decoded,
                 or padding of the last evaluation batch
"""

NO_LABEL = 2**31 - 1  # out of range for any number of classes, so the scatter drops it
