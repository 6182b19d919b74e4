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

    In files of restart intervals these are blocks around the window, in others all above it too.

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

def rewritten(data: bytes, in_intervals: bool, /) -> bytes | None:
    """The same coefficients and markers in a sequential file, perhaps in restart intervals.

    Args:
        data: a file of 1 or 3 components.
        in_intervals: divide every row of blocks evenly into intervals of about 64 pixels, of which
            `decode_window` reads those that it needs. Files of a single component that is
            subsampled stay without.

    Returns:
        The file; None if the given one is like that.

    Raises:
        ValueError: libjpeg's message.
    """
