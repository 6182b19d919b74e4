# SPDX-License-Identifier: BSD-3-Clause
"""Decodes all formats except JPEG, after the header was checked."""

import contextlib
import importlib
import io
import struct
from typing import IO

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from mlimages_jax.data.images import bmp_pixels, pillow_pixels, png_chunks
from mlimages_jax.data.images.budget import decoding_bytes
from mlimages_jax.data.images.header import read_header
from mlimages_jax.data.images.image_types import BadImage, ImageHeader, described
from mlimages_jax.data.images.other_headers import dib_layout, icon_image
from mlimages_jax.data.images.tiff_header import stored_upright

_STRIP = 2**20  # pixels processed at a time
_NAMES = {"avif": "an AVIF", "heif": "a HEIC", "jpeg2000": "a JPEG 2000", "tiff": "a TIFF"}


def decode(data: bytes, header: ImageHeader) -> np.ndarray:
    """Returns uint8 [H, W, 3], RGB, of any format except JPEG; of animations the first frame.

    Raises:
        BadImage: If the file cannot be decoded; has the reason.
        Exception: Anything that a library raises.
    """
    if header.format == "png":
        return _png(data, header)
    if header.format == "webp" and not (data[12:16] == b"VP8X" and data[20] & 2):  # an animation
        return _by_opencv(data, header)
    if header.format == "heif":
        return _heif(data)
    if header.format == "ico":
        return _icon(data)
    if header.format == "bmp" and (pixels := bmp_pixels.decode(data)) is not None:
        return pixels
    if header.format == "tiff":
        data = stored_upright(data)
    return _by_pillow(io.BytesIO(data), header.format)


def _png(data: bytes, header: ImageHeader) -> np.ndarray:
    file = png_chunks.pixels_only(data)
    if header.bits == 16 and header.components == 3 and file.transparency:
        return _deep_with_key(file, header)
    levels = 2**header.bits - 1
    key = None
    if header.components == 1 and file.transparency:
        (key,) = struct.unpack(">H", file.transparency[:2])
        if header.bits < 8:  # Pillow scales the pixels to 255, but not the key it compares with
            key = (key & levels) * 255 // levels
    try:
        return _by_pillow(io.BufferedReader(png_chunks.Pieces(file.pieces)), "png", key=key)
    except BadImage as bad:
        if file.is_truncated:
            raise BadImage("truncated", str(bad)) from bad
        raise


def _deep_with_key(file: png_chunks.PngFile, header: ImageHeader) -> np.ndarray:
    """Handles a transparent colour of 16 bits, which Pillow compares after dropping 8 of them."""
    size = header.width * header.height
    decoding_bytes(header._replace(held=12 * size))  # OpenCV's two copies
    pieces = [piece for piece in file.pieces if piece[4:8] != b"tRNS"]
    # Without the chunk of transparency, for which OpenCV would add an alpha channel.
    deep: np.ndarray | None = cv2.imdecode(
        np.frombuffer(b"".join(pieces), np.uint8), cv2.IMREAD_UNCHANGED
    )
    if deep is None:
        reason = "truncated" if file.is_truncated else "corrupt"
        raise BadImage(reason, "OpenCV cannot read this PNG of 16 bits")
    key = np.array(struct.unpack(">HHH", file.transparency[:6]), np.uint16)
    pixels = np.empty((header.height, header.width, 3), np.uint8)
    for rows in _strips(header.height, header.width):
        strip = deep[rows, :, ::-1]
        pixels[rows] = strip >> 8
        pixels[rows][(strip == key).all(axis=2)] = 255
    return pixels


def _by_opencv(data: bytes, header: ImageHeader) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise BadImage("corrupt", f"OpenCV cannot read this {header.format}")
    height, width, channels = pixels.shape
    if channels == 3:
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
    result = pixels.reshape(-1)[: 3 * height * width].reshape(height, width, 3)
    for rows in _strips(height, width):  # in place: writing never overtakes reading
        result[rows] = pillow_pixels.on_white(pixels[rows][:, :, [2, 1, 0, 3]])
    return result


def _strips(height: int, width: int) -> list[slice]:
    rows = -(-_STRIP // width)
    return [slice(top, min(top + rows, height)) for top in range(0, height, rows)]


def _icon(data: bytes) -> np.ndarray:
    image = icon_image(data)
    if image.startswith(png_chunks.SIGNATURE):
        header = read_header(image)
        return _png(image, header)
    # Built as an icon of this image only, so that Pillow cannot choose another one. Pillow expects
    # the mask at the end. A cursor differs in one byte.
    layout = dib_layout(image)
    image = image[: layout.end]
    bits = layout.bits
    if bits == 32 and not any(image[layout.pixels + 3 : layout.mask : 4]):
        bits = 24  # if alpha is zero everywhere, the mask decides about transparency
    entry = struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, bits, len(image), 22)
    return _by_pillow(io.BytesIO(entry + image), "ico")


def _heif(data: bytes) -> np.ndarray:
    """Decodes opaque colour with one copy; Pillow would need two."""
    _check_installed("heif")
    try:
        image = importlib.import_module("pillow_heif").open_heif(data, convert_hdr_to_8bit=True)
        if image.mode == "RGB":
            return np.array(image)
    except (ValueError, OSError, RuntimeError, SyntaxError, EOFError) as error:
        raise _bad_image(error, "heif") from error
    return _by_pillow(io.BytesIO(data), "heif")


def _by_pillow(file: IO[bytes], kind: str, *, key: int | None = None) -> np.ndarray:
    """Decodes a file with Pillow; `key` is the transparent level of grey pixels."""
    _check_installed(kind)
    try:
        with Image.open(file, formats=[kind]) as image:
            if key is not None:
                image.info["transparency"] = key
            return pillow_pixels.rgb(image)
    except (BadImage, MemoryError, Image.DecompressionBombError):
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error and others
        raise _bad_image(error, kind) from error


def _bad_image(error: Exception, kind: str) -> BadImage:
    """Translates Pillow's error into a message that says what to do."""
    text = described(error)
    if isinstance(error, UnidentifiedImageError) and kind == "tiff":
        return BadImage(
            "unsupported",
            "a TIFF of a kind that Pillow does not support (floats, 32 bits, special colours), or "
            "damaged: convert it to RGB of 8 bits a channel",
        )
    if isinstance(error, UnidentifiedImageError):
        return BadImage("corrupt", f"Pillow: the header of this {kind} file is damaged")
    if text.startswith("decoder error"):
        message = "the pixels are damaged, or compressed in an unsupported way"
        return BadImage("corrupt", f"Pillow: {message}")
    if text.lower().startswith("unsupported") or isinstance(error, NotImplementedError):
        return BadImage("unsupported", f"Pillow: {text}: convert it to JPEG or PNG")
    is_truncated = "truncated" in text.lower() or text == "not enough image data"
    return BadImage("truncated" if is_truncated else "corrupt", f"Pillow: {text}")


def _check_installed(kind: str) -> None:
    if kind == "heif":
        with contextlib.suppress(ImportError):
            importlib.import_module("pillow_heif").register_heif_opener()
    name = kind.upper()
    if name not in Image.OPEN:
        Image.init()
    if name not in Image.OPEN:
        extra = "pip install pillow-heif" if kind == "heif" else "install a newer Pillow"
        raise BadImage(
            "unsupported",
            f"{_NAMES.get(kind, kind)} file, which this installation cannot read: {extra}, or "
            "convert it to JPEG or PNG",
        )
