# SPDX-License-Identifier: BSD-3-Clause
"""Image files of every kind that people's folders hold, good and bad, made when asked for.

The image is 64 pixels wide and 32 high: red and green above, blue and yellow below, in quadrants
that coincide with JPEG's blocks, so that each keeps its colour within a few levels.
"""

import io
import struct

import cv2
import numpy as np
import simplejpeg
from PIL import Image

RED, GREEN, BLUE, YELLOW = (220, 40, 30), (30, 200, 60), (40, 50, 210), (230, 220, 40)
HEIGHT, WIDTH = 32, 64
HTML = b"<!DOCTYPE html><html><title>404</title>Photo no longer available</html>"


def quadrants() -> np.ndarray:
    """The image, uint8 [32, 64, 3]."""
    corners = np.array([[RED, GREEN], [BLUE, YELLOW]], np.uint8)
    return corners.repeat(HEIGHT // 2, axis=0).repeat(WIDTH // 2, axis=1)


def noise(height: int = 64, width: int = 96) -> np.ndarray:
    """An image of soft blobs, whose JPEG has pixel data worth breaking."""
    coarse = np.random.default_rng(0).integers(60, 196, (4, 6, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def jpeg(pixels: np.ndarray, *, colours: str = "444") -> bytes:
    return simplejpeg.encode_jpeg(pixels, quality=95, colorsubsampling=colours)


def grey_jpeg() -> bytes:
    grey = np.ascontiguousarray(quadrants()[:, :, :1])
    return simplejpeg.encode_jpeg(grey, quality=95, colorspace="GRAY", colorsubsampling="Gray")


def by_pillow(file_format: str, *, mode: str = "RGB", **options: object) -> bytes:
    return _saved(Image.fromarray(quadrants()).convert(mode), file_format, **options)


def translucent_png() -> bytes:
    """Opaque on the left, invisible on the right."""
    alpha = np.where(np.arange(WIDTH) < WIDTH // 2, 255, 0).astype(np.uint8)
    rgba = np.dstack([quadrants(), np.tile(alpha, (HEIGHT, 1))])
    return _saved(Image.fromarray(rgba), "PNG")


def palette_png() -> bytes:
    return _saved(Image.fromarray(quadrants()).quantize(4), "PNG")


def noisy_png() -> bytes:
    return _saved(Image.fromarray(noise()), "PNG")


def deep_png(*, grey: bool = False) -> bytes:
    """16 bits a channel; the low byte is noise."""
    deep = quadrants().astype(np.uint16) * 256 + 77
    deep = deep[:, :, 0] if grey else deep[:, :, ::-1]  # OpenCV's order is BGR
    return cv2.imencode(".png", deep)[1].tobytes()


def exif_jpeg(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return by_pillow("JPEG", quality=95, subsampling=0, exif=exif)


def truncated(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def flipped(data: bytes, *, seed: int, count: int = 12) -> bytes:
    """Flip single bits in the second half of a file."""
    generator = np.random.default_rng(seed)
    broken = bytearray(data)
    for position in generator.integers(len(data) // 2, len(data) - 2, count):
        broken[position] ^= 1 << int(generator.integers(8))
    return bytes(broken)


def jpeg_bomb(side: int = 65_000) -> bytes:
    """A few hundred bytes which claim side * side pixels."""
    data = bytearray(jpeg(np.zeros((8, 8, 3), np.uint8)))
    frame = data.index(b"\xff\xc0")
    struct.pack_into(">HH", data, frame + 5, side, side)
    return bytes(data)


def png_bomb(side: int = 65_000) -> bytes:
    data = bytearray(by_pillow("PNG"))
    struct.pack_into(">II", data, 16, side, side)
    return bytes(data)


def gif_bomb(side: int = 65_000) -> bytes:
    data = bytearray(by_pillow("GIF"))
    struct.pack_into("<HH", data, 6, side, side)
    return bytes(data)


def _saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


GOOD = {
    "colour": lambda: jpeg(quadrants()),
    "halved colour": lambda: jpeg(quadrants(), colours="420"),
    "progressive": lambda: by_pillow("JPEG", quality=95, subsampling=0, progressive=True),
    "rotated by EXIF": lambda: exif_jpeg(6),
    "cmyk": lambda: by_pillow("JPEG", mode="CMYK", quality=95),
    "png named .JPEG": lambda: by_pillow("PNG"),
    "png with a palette": palette_png,
    "gif named .JPEG": lambda: by_pillow("GIF"),
    "webp named .JPEG": lambda: by_pillow("WEBP", quality=95),
    "lossless webp": lambda: by_pillow("WEBP", lossless=True),
    "16-bit png": deep_png,
    "jpeg without its end": lambda: jpeg(quadrants())[:-2],
    "bmp": lambda: by_pillow("BMP"),
    "tiff": lambda: by_pillow("TIFF"),
}

BAD = {
    "empty": (lambda: b"", "empty"),
    "html": (lambda: HTML, "not_an_image"),
    "psd": (lambda: b"8BPS\0\1" + bytes(20), "unsupported"),
    "truncated jpeg": (lambda: truncated(jpeg(noise())), "truncated"),
    "jpeg without its last rows": (lambda: jpeg(noise())[:-40], "truncated"),
    "three bytes": (lambda: jpeg(noise())[:3], "truncated"),
    "truncated cmyk": (lambda: truncated(by_pillow("JPEG", mode="CMYK")), "truncated"),
    "truncated png": (lambda: truncated(by_pillow("PNG")), "truncated"),
    "truncated 16-bit png": (lambda: truncated(deep_png()), "truncated"),
    "truncated gif": (lambda: truncated(by_pillow("GIF")), "truncated"),
    "truncated webp": (lambda: truncated(by_pillow("WEBP")), "corrupt"),  # libwebp says no more
    "bit-flipped jpeg": (lambda: flipped(jpeg(noise()), seed=0), "corrupt"),
    "bit-flipped png": (lambda: flipped(noisy_png(), seed=0), "corrupt"),
    "bit-flipped 16-bit png": (lambda: flipped(deep_png(), seed=1), "corrupt"),
    "jpeg bomb": (jpeg_bomb, "too_large"),
    "png bomb": (png_bomb, "too_large"),
    "gif bomb": (gif_bomb, "too_large"),
    "zero width": (lambda: jpeg_bomb(side=0), "corrupt"),
}
