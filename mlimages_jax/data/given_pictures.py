# SPDX-License-Identifier: BSD-3-Clause
"""Pictures as people hand them over: paths, bytes, PIL images, arrays; or cut and batched."""

import os
import threading
from collections.abc import Iterable

import numpy as np
from etils import epath
from PIL import Image, ImageOps

from mlimages_jax.data import pillow_pixels
from mlimages_jax.data.decode import BadPicture, decode, read_header
from mlimages_jax.data.image_folders import read_regular
from mlimages_jax.data.image_types import described

Picture = str | os.PathLike[str] | bytes | Image.Image | np.ndarray
Pictures = Picture | Iterable[Picture]

_FORMS = "give a path, the bytes of a file, a PIL image or a uint8 array [H, W, 3]"
_ONE = 1.001  # with room for rounding
_pillow = threading.Lock()  # an opened image reads its pixels late, and from one thread only


def as_list(pictures: Pictures) -> list[Picture]:
    """One picture or several, as a list."""
    if isinstance(pictures, str | os.PathLike | bytes | Image.Image):
        return [pictures]
    if isinstance(pictures, np.ndarray) and pictures.ndim == 3:
        return [pictures]
    return list(pictures)


def name_of(picture: Picture, position: int) -> str:
    """What an error calls a picture: its path, or its position."""
    if isinstance(picture, str | os.PathLike):
        return os.fspath(picture)
    return getattr(picture, "filename", "") or f"picture {position}"


def pixels(picture: Picture, *, exif_orientation: bool = False) -> np.ndarray:
    """The pixels of a picture, uint8 [H, W, 3], RGB.

    Args:
        picture: in any of the forms; an array is taken as it is.
        exif_orientation: turn it upright as its EXIF data say.

    Raises:
        BadPicture: it cannot be decoded, or it is none of these.
        OSError: the file cannot be read.
    """
    if isinstance(picture, str | os.PathLike):
        picture = _read(picture)
    if isinstance(picture, bytes):
        return decode(picture, exif_orientation=exif_orientation)
    if isinstance(picture, Image.Image):
        return _pixels_of_pil(picture, exif_orientation=exif_orientation)
    if not isinstance(picture, np.ndarray):
        raise BadPicture("unsupported", f"a {type(picture).__name__}: {_FORMS}")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        shape = list(picture.shape)
        raise BadPicture("unsupported", f"an array {picture.dtype} {shape}: {_FORMS}")
    return picture


def _read(path: str | os.PathLike[str]) -> bytes:
    if "://" in os.fspath(path):
        return epath.Path(path).read_bytes()
    return read_regular(os.fspath(path))


def _pixels_of_pil(picture: Image.Image, *, exif_orientation: bool) -> np.ndarray:
    """uint8 [H, W, 3]; transparent pixels are laid on white, as `decode` does."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        raise BadPicture("unsupported", f"a PIL image of mode {picture.mode}: make it RGB first")
    try:
        with _pillow:
            _check_unread(picture)
            picture.load()
        if exif_orientation:
            picture = ImageOps.exif_transpose(picture)
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


def checked_images(images: np.ndarray) -> np.ndarray:
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
