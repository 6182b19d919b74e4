# SPDX-License-Identifier: BSD-3-Clause
"""The files that the image server sends: a few images, with distinct bytes for every path."""

import io
import struct
import zlib

import numpy as np
import simplejpeg
from PIL import Image

BOMB_SIDE = 65_000  # pixels
NOISE = 22  # standard deviation in levels, which makes a JPEG of 500 x 375 take 100 kB


class Images:
    """Makes the file of every path.

    Args:
        bases: Number of images with distinct pixels; a path's checksum selects one.
        width: Width in pixels.
        height: Height in pixels.
    """

    def __init__(self, *, bases: int, width: int, height: int):
        pixels = [_image(width, height, seed) for seed in range(bases)]
        self._jpegs = [_jpeg(image)[2:] for image in pixels]  # what follows the start marker
        half = [Image.fromarray(image[::2, ::2]) for image in pixels]  # a PNG is larger
        self._pngs = [_saved(image, "PNG") for image in half]
        self._cmyk = [
            _saved(Image.fromarray(image).convert("CMYK"), "JPEG")[2:] for image in pixels
        ]
        self.placeholder = self.jpeg("placeholder")
        self.unavailable = _saved(Image.new("RGB", (500, 374), (238, 238, 238)), "PNG")
        # Height and width follow the marker, the length (2 bytes) and the precision (1 byte) of the
        # baseline frame header (ITU-T T.81, B.2.2).
        bomb = bytearray(_jpeg(np.zeros((8, 8, 3), np.uint8)))
        struct.pack_into(">HH", bomb, bomb.index(b"\xff\xc0") + 5, BOMB_SIDE, BOMB_SIDE)
        self._bomb = bytes(bomb)[2:]

    def jpeg(self, path: str) -> bytes:
        """Returns a good JPEG."""
        return _with_comment(path, _chosen(self._jpegs, path))

    def cmyk(self, path: str) -> bytes:
        """Returns a good JPEG of four components."""
        return _with_comment(path, _chosen(self._cmyk, path))

    def bomb(self, path: str) -> bytes:
        """Returns a JPEG that claims more pixels than fit in any memory."""
        return _with_comment(path, self._bomb)

    def png(self, path: str) -> bytes:
        """Returns a good PNG with a text chunk between the header chunk and the rest."""
        png = _chosen(self._pngs, path)
        text = b"tEXtComment\0" + path.encode()
        # The length counts the data alone, the checksum also the type (PNG, 5.3).
        chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
        after_header = 8 + 25  # signature and IHDR, which must come first
        return png[:after_header] + chunk + png[after_header:]


def _with_comment(comment: str, jpeg: bytes) -> bytes:
    """Prepends the start marker and a comment segment (ITU-T T.81, B.2.4.5)."""
    text = comment.encode()
    return b"".join([b"\xff\xd8\xff\xfe", struct.pack(">H", len(text) + 2), text, jpeg])


def _chosen(files: list[bytes], path: str) -> bytes:
    return files[zlib.crc32(path.encode()) % len(files)]


def _image(width: int, height: int, seed: int) -> np.ndarray:
    """Returns noisy waves, uint8 [H, W, 3], that compress about as well as a photograph."""
    rows, columns = np.mgrid[:height, :width, :1][:2]
    colours = np.arange(3) + seed
    waves = 128 + 60 * np.sin(columns / 50 + colours) * np.cos(rows / 40)  # [H, W, 3]
    noise = np.random.default_rng(seed).normal(0, NOISE, (height, width, 1))
    return np.clip(waves + noise, 0, 255).astype(np.uint8)


def _jpeg(pixels: np.ndarray) -> bytes:
    return simplejpeg.encode_jpeg(pixels, quality=90, colorsubsampling="420")


def _saved(image: Image.Image, file_format: str) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format)
    return file.getvalue()
