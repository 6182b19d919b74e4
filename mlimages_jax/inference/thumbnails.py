# SPDX-License-Identifier: BSD-3-Clause
"""Small JPEGs of many images, such as FOLDER/7f/7f3a91c2d40be865.jpg, made once for each image.

The name is a key of what identifies the image (for files: name, size, modification time), so a
changed image gets another one, and nothing of an image's name reaches the file system.
"""

import concurrent.futures
import re
from pathlib import Path

from mlimages_jax.data.images.decode import BadImage, decode
from mlimages_jax.data.images.jpeg_encoder import encode
from mlimages_jax.data.images.shrinking import shrink
from mlimages_jax.files.atomic import complete_file
from mlimages_jax.inference.image_source import ImageSource
from mlimages_jax.inference.line_index import key_of

SIDE = 256  # pixels of the longer side, at most

_QUALITY = 80
_THREADS = 8  # for decoding
_OURS = re.compile(r"[0-9a-f]{16}\.jpg")


class Thumbnails:
    """A folder of thumbnails.

    Args:
        folder: The folder, created if missing.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def update(self, source: ImageSource) -> list[str]:
        """Makes those that are missing, and removes those of images that are gone.

        Args:
            source: The images.

        Returns:
            The path of each thumbnail below the folder; "" for an image that cannot be read.
        """
        names = [_name(key_of(source.identity(position))) for position in range(len(source))]
        positions = dict(zip(names, range(len(source)), strict=True))  # a list may repeat an image
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            is_made = pool.map(lambda name: self._make(source, positions[name], name), positions)
            made = {name for name, there in zip(positions, is_made, strict=True) if there}
        self._remove_all_but(made)
        return [name if name in made else "" for name in names]

    def _make(self, source: ImageSource, position: int, name: str) -> bool:
        path = self._folder / name
        if path.exists():
            return True
        try:
            data = thumbnail(source.read(position))
        except BadImage:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        with complete_file(path) as unfinished:
            unfinished.write_bytes(data)
        return True

    def _remove_all_but(self, names: set[str]) -> None:
        """Removes old thumbnails; files of others in the folder stay."""
        for path in self._folder.glob("??/*.jpg"):
            if _OURS.fullmatch(path.name) and f"{path.parent.name}/{path.name}" not in names:
                path.unlink(missing_ok=True)


def _name(key: int) -> str:
    text = f"{key:016x}.jpg"
    return f"{text[:2]}/{text}"


def thumbnail(data: bytes) -> bytes:
    """Returns an upright JPEG without the metadata of the file, which may tell a place.

    Raises:
        BadImage: The file cannot be decoded.
    """
    pixels = decode(data, min_height=SIDE, min_width=SIDE, exif_orientation=True)
    height, width = pixels.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(scale * height)), max(1, round(scale * width)))
    if size != (height, width):
        pixels = shrink(pixels, *size)
    return b"".join(encode(pixels, quality=_QUALITY, chroma="420"))
