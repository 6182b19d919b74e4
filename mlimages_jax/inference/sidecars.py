# SPDX-License-Identifier: BSD-3-Clause
"""XMP sidecars, beside the images: photo.jpg.xmp for photo.jpg."""

import shutil
from pathlib import Path

from mlimages_jax.files.atomic import complete_file
from mlimages_jax.inference import xmp_tags
from mlimages_jax.inference.tag_files import Row
from mlimages_jax.inference.xmp_tags import XmpError

_LARGEST = 2**24  # bytes; the editing histories of photo managers stay below a tenth of it


def sidecar_of(image: Path) -> Path:
    """Returns the path of an image's sidecar.

    The extension stays: photo.xmp would also be that of photo.png and photo.raw.
    """
    return image.with_name(f"{image.name}.xmp")


def write_sidecar(image: Path, row: Row) -> bool:
    """Writes the tags of an image to its sidecar, and keeps everything else in it.

    Args:
        image: Path of the image, which is not changed.
        row: Its row; an unreadable image keeps its sidecar.

    Returns:
        Whether the sidecar had to be changed.

    Raises:
        XmpError: If there is a sidecar that has to be left alone.
        OSError: If it cannot be read or written.
    """
    if "error" in row:
        return False
    path = sidecar_of(image)
    before = _read(path)
    after = xmp_tags.merged(before, xmp_tags.keywords_of([tag["path"] for tag in row["tags"]]))
    if after is None:
        return False
    with complete_file(path) as unfinished:
        unfinished.write_bytes(after)
        if before is not None:
            shutil.copymode(path, unfinished)  # a replaced file would get the default mode
    return True


def _read(path: Path) -> bytes | None:
    """Returns the content of a sidecar; None if there is none."""
    if path.is_symlink():
        raise XmpError("it is a link, which would be replaced")
    try:
        if path.stat().st_size > _LARGEST:
            raise XmpError(f"it is larger than {_LARGEST} bytes")
        return path.read_bytes()
    except FileNotFoundError:
        return None
