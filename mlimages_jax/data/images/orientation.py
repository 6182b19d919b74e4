# SPDX-License-Identifier: BSD-3-Clause
"""EXIF orientation: reads it from a file, and turns pixels upright."""

import io
import struct

import cv2
import numpy as np
from PIL import Image

from mlimages_jax.data.images import jpeg_markers, png_chunks
from mlimages_jax.data.images.image_types import ImageHeader

_EXIF_ORIENTATION = 0x0112
_QUARTER_TURNS = {6: cv2.ROTATE_90_CLOCKWISE, 8: cv2.ROTATE_90_COUNTERCLOCKWISE}


def orientation_of(data: bytes, header: ImageHeader) -> int:
    """Returns the EXIF orientation, 1 to 8; 1 if there is none or it is invalid."""
    if (
        header.format == "jpeg"
        and data.find(b"Exif\0\0", 0, header.scan) < 0
        and data.find(b"tiff:Orientation", 0, header.scan) < 0
    ):
        # The usual case: no mark of a tag. Asking Pillow costs a twentieth of storing an image.
        return 1
    try:
        value = _exif_orientation(data, header)
        if value is None and header.format == "jpeg":
            value = _exif_orientation(jpeg_markers.repaired(data) or data, header)
    except Exception:  # an image with broken EXIF data is still an image
        return 1
    return int(value) if value is not None and value in range(1, 9) else 1


def _exif_orientation(data: bytes, header: ImageHeader) -> float | None:
    """Returns the tag's value; None if the file cannot be opened."""
    if header.format == "png":
        data = b"".join(png_chunks.pixels_only(data, with_exif=True).pieces)
    try:
        image = Image.open(io.BytesIO(data), formats=[header.format])
    except Exception:  # as above; whether it is an image at all is for the decoder to say
        return None
    with image:
        return image.getexif().get(_EXIF_ORIENTATION, 1)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes an EXIF orientation: pixels [H, W, 3] become upright, [H, W, 3] or [W, H, 3].

    EXIF 2.32, tag 274, says where row 0 and column 0 belong.
    """
    if orientation in (2, 3, 4):  # in place
        return cv2.flip(pixels, {2: 1, 3: -1, 4: 0}[orientation], dst=pixels)
    if orientation in _QUARTER_TURNS:
        return cv2.rotate(pixels, _QUARTER_TURNS[orientation])
    if orientation in (5, 7):
        pixels = cv2.transpose(pixels)
    return cv2.flip(pixels, -1, dst=pixels) if orientation == 7 else pixels


def as_stored(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Returns a view [W, H, 3] of upright pixels as a file of orientation 5 to 8 stores them."""
    # Views only: NumPy writes through them, and nothing is copied.
    if orientation in (6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (7, 8):
        pixels = pixels[::-1]
    return pixels.swapaxes(0, 1)


def with_orientation(encoded: bytes, orientation: int) -> bytes:
    """Inserts EXIF data with this tag into a JPEG of simplejpeg, after its JFIF segment."""
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = orientation
    content = exif.tobytes()
    (jfif,) = struct.unpack_from(">H", encoded, 4)
    at = 4 + jfif
    return encoded[:at] + struct.pack(">HH", 0xFFE1, 2 + len(content)) + content + encoded[at:]
