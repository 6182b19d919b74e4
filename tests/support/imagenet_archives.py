# SPDX-License-Identifier: BSD-3-Clause
"""Archives in the nestings of ImageNet, made from images in memory."""

import gzip
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

Synsets = Mapping[str, Mapping[str, bytes]]  # {"n01440764": {"n01440764_10026.JPEG": bytes}}


def tar(files: Mapping[str, bytes], *, tar_format: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar of these files in their order."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tar_format) as archive:
        for name, data in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return file.getvalue()


def write_nested(path: Path, synsets: Synsets, *, folder: str = "", compress: bool = False) -> Path:
    """A tar of one tar a synset: ILSVRC2012_img_train.tar, fall11_whole.tar; returns `path`.

    Args:
        path: of the archive.
        synsets: files by synset.
        folder: before the names of the inner tars, such as "winter21_whole/".
        compress: with gzip.
    """
    data = tar({f"{folder}{synset}.tar": tar(files) for synset, files in synsets.items()})
    path.write_bytes(gzip.compress(data, mtime=0) if compress else data)
    return path


def write_flat(path: Path, files: Mapping[str, bytes]) -> Path:
    """A tar of images: ILSVRC2012_img_val.tar; returns `path`."""
    path.write_bytes(tar(files))
    return path
