# SPDX-License-Identifier: BSD-3-Clause
"""Copies the images of Parquet and Arrow files into tars, where each has a place of its own.

A shard of a data set has rows from everywhere in its input. In a tar each of them is one read at a
known place; in Parquet it would be a page to decompress for every image.

The folder of the tars is named after their sources and their times. So what an earlier import put
beside it stays with the lists of then until the new lists are complete.
"""

import hashlib
import io
import os
import re
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

from mlimages_jax.files.atomic import complete_file
from mlimages_jax.files.counting import counted
from mlimages_jax.monitoring.progress_bar import progress
from mlimages_jax.prepare.imports import full_disk
from mlimages_jax.prepare.imports.image_rows import ImageRows

_FOLDER = re.compile(r"packed_[0-9a-f]{8}")


def pack(sources: Sequence[ImageRows], output: Path, *, top: Path) -> Path:
    """Writes one tar for each source, named by its `tar`, and returns their folder.

    The same sources give the same tars, with the times of the sources, so that a finished data set
    stays one of the same input.

    Args:
        sources: The files; rows without an image are noted in them.
        output: The folder of the lists; the tars go into a folder in it.
        top: Folder that paths of images are relative to, if not to that of the file.

    Raises:
        PrepareError: A source is damaged, or the disk is full.
        OSError: The folder cannot be written to.
    """
    folder = output / f"packed_{_fingerprint(sources)}"
    count = size = 0
    with full_disk.names_folder(output):
        folder.mkdir(parents=True, exist_ok=True)
        total = sum(one.path.stat().st_size for one in sources)
        with progress(total >> 20, what="images copied", unit=" MB") as bar:
            for one in sources:
                images, written = _pack(one, folder / one.tar, top)
                count, size = count + images, size + written
                bar.update(one.path.stat().st_size >> 20)
    print(
        f"{counted(count, 'image')} were copied into {folder} ({size / 1e9:.1f} GB); remove it "
        "once the data set is built"
    )
    return folder


def remove_others(folder: Path) -> None:
    """Removes what earlier imports packed into the same output; their lists are gone."""
    for other in folder.parent.iterdir():
        if other != folder and _FOLDER.fullmatch(other.name) and not other.is_symlink():
            shutil.rmtree(other)


def _pack(source: ImageRows, path: Path, top: Path) -> tuple[int, int]:
    """Returns the number of images and the size of the tar in bytes."""
    count = 0
    with complete_file(path) as unfinished:
        with tarfile.open(unfinished, "w", format=tarfile.GNU_FORMAT) as tar:
            for name, data in source.images([source.path.parent, top]):
                header = tarfile.TarInfo(name)
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
                count += 1
        time = source.path.stat().st_mtime_ns
        os.utime(unfinished, ns=(time, time))
        size = unfinished.stat().st_size
    return count, size


def _fingerprint(sources: Sequence[ImageRows]) -> str:
    digest = hashlib.sha256()
    for one in sources:
        status = one.path.stat()
        digest.update(f"{one.path.resolve()}\0{one.image_column}\0{one.tar}\0".encode(
            errors="surrogateescape"))  # fmt: skip
        digest.update(b"%d %d\n" % (status.st_size, status.st_mtime_ns))
    return digest.hexdigest()[:8]
