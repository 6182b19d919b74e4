# SPDX-License-Identifier: BSD-3-Clause
"""Images in the forms users have them: paths, bytes, files, PIL images, arrays, or a batch."""

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
from mlimages_jax.data.images.decode import BadImage, decode, read_header
from mlimages_jax.data.images.image_types import described
from mlimages_jax.files.remote import is_remote

# An array may be NumPy's, JAX's or anything else that NumPy can convert.
UserImage = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | Any
UserImages = UserImage | Iterable[UserImage]

_FORMS = (
    "give a path, the bytes of a file, a file opened with 'rb', a PIL image, or an array [H, W, 3] "
    "or [H, W], uint8 or floats in [-1, 1]"
)
_ADDRESS = re.compile(r"(?i)(https?|ftp|data):")  # no slashes: pathlib turns "//" into "/"
_ONE = 1.001  # tolerates rounding
_MAX_16_BIT = 2**16 - 1
_CONVERTED = {"La": "LA", "HSV": "RGB", "LAB": "RGB"}  # PIL modes that `decode` never produces
_pillow = threading.Lock()  # PIL images load lazily and are not thread-safe while they load


def is_one(images: UserImages) -> bool:
    """Returns whether this is one image rather than several."""
    if isinstance(images, str | os.PathLike | bytes | bytearray | memoryview | Image.Image):
        return True
    if hasattr(images, "read"):  # checked before Iterable: files iterate over lines
        return True
    if hasattr(images, "__array__") and hasattr(images, "ndim"):
        return images.ndim in (2, 3)
    return not isinstance(images, Iterable)  # not an image either; `pixels` reports that


def each(images: UserImages) -> Iterator[UserImage]:
    """Iterates over one image or several."""
    several: Any = [images] if is_one(images) else images
    return iter(several)


def is_batch(images: UserImages) -> bool:
    """Returns whether this is a 4-D array, ready for the network."""
    return hasattr(images, "__array__") and getattr(images, "ndim", 0) == 4


def name_of(image: UserImage, position: int) -> str:
    """Returns the name of an image in error messages: its path, or its position."""
    if isinstance(image, str | os.PathLike):
        return os.fspath(image)
    name = getattr(image, "filename", "") or getattr(image, "name", "")
    return name if isinstance(name, str) and name else f"image {position}"


def pixels(image: UserImage, *, exif_orientation: bool = False) -> np.ndarray:
    """Returns the pixels of an image, uint8 [H, W, 3], RGB.

    Args:
        image: An image in any of the forms. PIL images with 16 bits keep their high byte, as files
            do. Floats in [-1, 1] are rounded to the nearest level; arrays [H, W] are grey.
        exif_orientation: Whether to apply the EXIF orientation; arrays have none.

    Raises:
        BadImage: If the image cannot be decoded, or has another form.
        OSError: If the file cannot be read.
    """
    if isinstance(image, str | os.PathLike):
        image = _read(image)
    elif hasattr(image, "read") and not isinstance(image, Image.Image):
        image = _read_opened(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return decode(bytes(image), exif_orientation=exif_orientation)
    if isinstance(image, Image.Image):
        return _pixels_of_pil(image, exif_orientation=exif_orientation)
    if not (hasattr(image, "__array__") and hasattr(image, "ndim")):
        raise BadImage("unsupported", f"a {type(image).__name__}: {_FORMS}")
    return _pixels_of_array(np.asarray(image))


def _read(path: str | os.PathLike[str]) -> bytes:
    text = os.fspath(path)
    if match := _ADDRESS.match(text):
        raise BadImage(
            "unsupported",
            f"{text[:80]!r} is a URL ({match[1].lower()}:), not a path: download it first, and "
            "give the path or the bytes of the file",
        )
    if is_remote(text):
        return epath.Path(path).read_bytes()
    return read_regular(text)


def _read_opened(file: Any) -> bytes:
    """Reads the rest of an open file."""
    with _pillow:  # the same file may appear twice among the images
        data = file.read()
    if isinstance(data, str):
        raise BadImage("unsupported", "a file opened as text: open it with 'rb'")
    if not data:
        raise BadImage("empty", "the file is at its end: call seek(0) to return to its start")
    return data


def _pixels_of_pil(image: Image.Image, *, exif_orientation: bool) -> np.ndarray:
    """Returns uint8 [H, W, 3]; transparent pixels are blended with white, as in `decode`."""
    try:
        with _pillow:
            _check_unread(image)
            image.load()
        # From here on nothing is lazy, so the lock is not held while pixels are converted.
        if exif_orientation:
            image = ImageOps.exif_transpose(image)
        if image.mode in ("I", "F"):
            return _levels_of_deep(image)
        if image.mode in _CONVERTED:
            image = image.convert(_CONVERTED[image.mode])
        return pillow_pixels.rgb(image)
    except BadImage:
        raise
    except Exception as error:  # lazy loading fails here: OSError, SyntaxError and others
        raise BadImage("corrupt", f"Pillow: {described(error)}") from error


def _check_unread(image: Image.Image) -> None:
    """Checks the header of a JPEG that Pillow has opened but not decoded, as `decode` would."""
    file = getattr(image, "fp", None)
    if image.format in ("JPEG", "MPO") and getattr(image, "tile", None) and file:
        # Pillow still has to read from where it stopped, so the position is restored.
        position = file.tell()
        file.seek(0)
        header = file.read()
        file.seek(position)
        read_header(header)


def _levels_of_deep(image: Image.Image) -> np.ndarray:
    """Converts a 16-bit image, which Pillow may also store in 32 bits, to uint8 [H, W, 3]."""
    deep = np.asarray(image)
    if image.mode == "F" or (deep.size and not 0 <= deep.min() <= deep.max() <= _MAX_16_BIT):
        raise BadImage(
            "unsupported",
            f"a PIL image of mode {image.mode} with numbers from {deep.min():g} to "
            f"{deep.max():g}, whose white level is unknown: convert it to RGB first",
        )
    return _as_rgb((deep >> 8).astype(np.uint8))


def _pixels_of_array(array: np.ndarray) -> np.ndarray:
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3))
    if not fits or not array.size or array.dtype.kind not in "bufV":  # V: bfloat16
        raise BadImage("unsupported", f"an array {array.dtype} {list(array.shape)}: {_FORMS}")
    array = _as_rgb(array)
    if array.dtype == bool:
        return np.where(array, np.uint8(255), np.uint8(0))
    return array if array.dtype == np.uint8 else _levels(array)


def _levels(array: np.ndarray) -> np.ndarray:
    """Rounds floats in [-1, 1] to uint8 levels; inverts x / 127.5 - 1 exactly."""
    try:
        floats = checked_images(array[None])[0]
    except ValueError as error:
        raise BadImage("unsupported", str(error)) from error
    return np.rint((floats.clip(-1, 1) + 1) * 127.5).astype(np.uint8)


def _as_rgb(array: np.ndarray) -> np.ndarray:
    """Converts [H, W, 3], [H, W, 1] or [H, W] to [H, W, 3]."""
    grey = array[:, :, None] if array.ndim == 2 else array
    return grey if grey.shape[2] == 3 else grey.repeat(3, axis=2)


def checked_images(images: Any) -> np.ndarray:
    """Checks a batch and converts it for the network: [B, S, S, 3], uint8 or float32 in [-1, 1].

    Raises:
        ValueError: If it has another shape or dtype, or numbers outside [-1, 1].
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images {images.shape} must be [B, S, S, 3], even for a single image")
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind not in "fV":  # V: bfloat16
        raise ValueError(f"images of dtype {images.dtype}: give floats in [-1, 1], or uint8")
    images = images.astype(np.float32)
    # Negated so that nan is rejected too.
    if images.size and not (images.min() >= -_ONE and images.max() <= _ONE):
        raise ValueError(
            f"images from {images.min():.3g} to {images.max():.3g}: give floats in [-1, 1] "
            "(x / 127.5 - 1 of levels from 0 to 255), or the levels as uint8"
        )
    return images
