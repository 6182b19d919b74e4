# SPDX-License-Identifier: BSD-3-Clause
"""Images as people hand them over: paths, bytes, files, PIL images, arrays; or a batch."""

import os
import re
import threading
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
from etils import epath
from PIL import Image, ImageOps

from mlimages_jax.data.image_folders import read_regular
from mlimages_jax.data.images import pillow_pixels
from mlimages_jax.data.images.decode import BadPicture, decode, read_header
from mlimages_jax.data.images.image_types import described

# An array is numpy's, jax's or anything else that numpy takes.
Picture = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | Any
Pictures = Picture | Iterable[Picture]

_FORMS = (
    "give a path, the bytes of a file, a file opened with 'rb', a PIL image, or an array [H, W, 3] "
    "or [H, W], uint8 or floats in [-1, 1]"
)
_ADDRESS = re.compile(r"(?i)(https?|ftp|data):")  # pathlib makes one slash of two
_ONE = 1.001  # with room for rounding
_DEEP = 2**16 - 1
_CONVERTED = {"La": "LA", "HSV": "RGB", "LAB": "RGB"}  # PIL modes that no file of ours has
_pillow = threading.Lock()  # an opened image reads its pixels late, and from one thread only


def is_one(pictures: Pictures) -> bool:
    """Whether this is one image, not several."""
    if isinstance(pictures, str | os.PathLike | bytes | bytearray | memoryview | Image.Image):
        return True
    if hasattr(pictures, "read"):  # before iteration: files yield lines
        return True
    if hasattr(pictures, "__array__") and hasattr(pictures, "ndim"):
        return pictures.ndim in (2, 3)
    return not isinstance(pictures, Iterable)  # not an image either; `pixels` says so


def each(pictures: Pictures) -> Iterator[Picture]:
    """One image or several, one by one."""
    several: Any = [pictures] if is_one(pictures) else pictures
    return iter(several)


def is_batch(pictures: Pictures) -> bool:
    """Whether this is an array of four dimensions, as the network takes it."""
    return hasattr(pictures, "__array__") and getattr(pictures, "ndim", 0) == 4


def name_of(picture: Picture, position: int) -> str:
    """What an error calls an image: its path, or its position."""
    if isinstance(picture, str | os.PathLike):
        return os.fspath(picture)
    name = getattr(picture, "filename", "") or getattr(picture, "name", "")
    return name if isinstance(name, str) and name else f"picture {position}"


def pixels(picture: Picture, *, exif_orientation: bool = False) -> np.ndarray:
    """The pixels of an image, uint8 [H, W, 3], RGB.

    Args:
        picture: in any of the forms. Of PIL images of 16 bits the high byte is kept, as of files.
            Floats in [-1, 1] become the levels next to them, arrays [H, W] are grey.
        exif_orientation: turn it upright as its EXIF data say; arrays have none.

    Raises:
        BadPicture: it cannot be decoded, or it is none of these.
        OSError: the file cannot be read.
    """
    if isinstance(picture, str | os.PathLike):
        picture = _read(picture)
    elif hasattr(picture, "read") and not isinstance(picture, Image.Image):
        picture = _read_opened(picture)
    if isinstance(picture, bytes | bytearray | memoryview):
        return decode(bytes(picture), exif_orientation=exif_orientation)
    if isinstance(picture, Image.Image):
        return _pixels_of_pil(picture, exif_orientation=exif_orientation)
    if not (hasattr(picture, "__array__") and hasattr(picture, "ndim")):
        raise BadPicture("unsupported", f"a {type(picture).__name__}: {_FORMS}")
    return _pixels_of_array(np.asarray(picture))


def _read(path: str | os.PathLike[str]) -> bytes:
    text = os.fspath(path)
    if match := _ADDRESS.match(text):
        raise BadPicture(
            "unsupported",
            f"{text[:80]!r} is an address ({match[1].lower()}:), not a path: download it first, "
            "and give the path or the bytes of the file",
        )
    if "://" in text:
        return epath.Path(path).read_bytes()
    return read_regular(text)


def _read_opened(file: Any) -> bytes:
    """What is left of an opened file."""
    with _pillow:  # the same file may be given twice
        data = file.read()
    if isinstance(data, str):
        raise BadPicture("unsupported", "a file opened as text: open it with 'rb'")
    if not data:
        raise BadPicture("empty", "nothing is left to read in the file: seek(0) goes to its start")
    return data


def _pixels_of_pil(picture: Image.Image, *, exif_orientation: bool) -> np.ndarray:
    """uint8 [H, W, 3]; transparent pixels are laid on white, as `decode` does."""
    try:
        with _pillow:
            _check_unread(picture)
            picture.load()
        if exif_orientation:
            picture = ImageOps.exif_transpose(picture)
        if picture.mode in ("I", "F"):
            return _levels_of_deep(picture)
        if picture.mode in _CONVERTED:
            picture = picture.convert(_CONVERTED[picture.mode])
        return pillow_pixels.rgb(picture)
    except BadPicture:
        raise
    except Exception as error:  # opened, but read only now: OSError, SyntaxError and more
        raise BadPicture("corrupt", f"Pillow: {described(error)}") from error


def _check_unread(picture: Image.Image) -> None:
    """The gate before Pillow's decoder, for a JPEG that was opened and not read yet."""
    file = getattr(picture, "fp", None)
    if picture.format in ("JPEG", "MPO") and getattr(picture, "tile", None) and file:
        place = file.tell()
        file.seek(0)
        header = file.read()
        file.seek(place)
        read_header(header)


def _levels_of_deep(picture: Image.Image) -> np.ndarray:
    """uint8 [H, W, 3] of an image of 16 bits, which Pillow also keeps in 32."""
    deep = np.asarray(picture)
    if picture.mode == "F" or (deep.size and not 0 <= deep.min() <= deep.max() <= _DEEP):
        raise BadPicture(
            "unsupported",
            f"a PIL image of mode {picture.mode} with numbers from {deep.min():g} to "
            f"{deep.max():g}, of which nothing says what is white: make it RGB first",
        )
    return _coloured((deep >> 8).astype(np.uint8))


def _pixels_of_array(array: np.ndarray) -> np.ndarray:
    right = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3))
    if not right or not array.size or array.dtype.kind not in "bufV":  # V: bfloat16
        raise BadPicture("unsupported", f"an array {array.dtype} {list(array.shape)}: {_FORMS}")
    array = _coloured(array)
    if array.dtype == bool:
        return np.where(array, np.uint8(255), np.uint8(0))
    return array if array.dtype == np.uint8 else _levels(array)


def _levels(array: np.ndarray) -> np.ndarray:
    """The uint8 levels next to floats in [-1, 1], exact for those that stand for levels."""
    try:
        floats = checked_images(array[None])[0]
    except ValueError as error:
        raise BadPicture("unsupported", str(error)) from error
    return np.rint((floats.clip(-1, 1) + 1) * 127.5).astype(np.uint8)


def _coloured(array: np.ndarray) -> np.ndarray:
    """[H, W, 3] of [H, W, 3], [H, W, 1] or [H, W]."""
    grey = array[:, :, None] if array.ndim == 2 else array
    return grey if grey.shape[2] == 3 else grey.repeat(3, axis=2)


def checked_images(images: Any) -> np.ndarray:
    """A batch of images as the network takes it: [B, S, S, 3], uint8 or float32 in [-1, 1].

    Raises:
        ValueError: another shape or dtype, or numbers outside [-1, 1].
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images {images.shape} must be [B, S, S, 3], also for a single one")
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind not in "fV":  # V: bfloat16
        raise ValueError(f"images of dtype {images.dtype}: give floats in [-1, 1], or uint8")
    images = images.astype(np.float32)
    # Written so that nan fails too.
    if images.size and not (images.min() >= -_ONE and images.max() <= _ONE):
        raise ValueError(
            f"images from {images.min():.3g} to {images.max():.3g}: give floats in [-1, 1] "
            "(x / 127.5 - 1 of levels from 0 to 255), or the levels as uint8"
        )
    return images
