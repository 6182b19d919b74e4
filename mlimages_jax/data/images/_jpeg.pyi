# SPDX-License-Identifier: BSD-3-Clause
"""Compiled code over libjpeg-turbo, built where its headers are; any warning counts as an error.

Both functions release Python's lock and may be called from many threads.
"""

import numpy as np

def decode_window(
    data: bytes,
    denominator: int,
    top: int,
    left: int,
    height: int,
    width: int,
    out: np.ndarray,
    /,
) -> int:
    """Decodes a window of a JPEG of 1 or 3 components to RGB, and no more of it than that takes.

    The pixels are those of the whole image (accurate DCT, smooth colour), bit by bit.

    Args:
        data: the file.
        denominator: 1, 2, 4 or 8: decode at this part of the size; the window is in its pixels.
        top: first row.
        left: first column.
        height: at least 1.
        width: at least 1.
        out: uint8 [height, columns, 3], contiguous; columns at least width + 48.

    Returns:
        The column of `out` where the window begins: out[:, c : c + width] is the window, the other
        columns are undefined.

    Raises:
        ValueError: libjpeg's message, or the window does not lie inside the image.
    """

def to_sequential(data: bytes, /) -> bytes | None:
    """The same coefficients and markers in a sequential file; None when it is not progressive.

    Raises:
        ValueError: libjpeg's message.
    """
