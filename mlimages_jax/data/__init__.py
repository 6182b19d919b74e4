# SPDX-License-Identifier: BSD-3-Clause
"""From records on disk to batches on devices.

A batch is a dict of arrays with leading dimension B:

    image        uint8 [B, S, S, 3], or float32 in [-1, 1] from the exact evaluation view
    labels       int32 [B, L], padded with `NO_LABEL`
    confidences  float32 [B, L]
    mask         bool [B], False for rows that are no example: an image that could not be decoded,
                 or the filling of the last evaluation batch
"""

NO_LABEL = 2**31 - 1  # as a class index it lies outside every target and is dropped by the scatter
