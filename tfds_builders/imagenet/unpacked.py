# SPDX-License-Identifier: BSD-3-Clause
"""Uncompresses an archive to a file next to it.

Gzip can only be read from the start, and a set is built from images in another order.
"""

import gzip
import shutil
import zlib
from pathlib import Path

from absl import logging

from mlimages_jax.files.atomic import complete_file

_BLOCK_BYTES = 1 << 20


def unpacked(path: Path) -> Path:
    """Returns the uncompressed archive: itself, or `a.tar` next to `a.tar.gz`, created once.

    Raises:
        OSError: The disk is full, or the folder cannot be written to; the message says what to do.
        ValueError: It cannot be uncompressed.
    """
    if path.suffix != ".gz":
        return path
    target = path.with_suffix("")
    if target.is_file():
        return target
    size = path.stat().st_size
    # JPEG hardly compresses, so the compressed size is a good estimate.
    if shutil.disk_usage(path.parent).free < size:
        raise OSError(
            f"{path} must be uncompressed to a file next to it, and there is no room for its"
            f" {size / 1e9:.1f} GB: free some space, or run `gunzip {path}`, which replaces it"
        )
    logging.info("uncompressing %s to %s, once: %.1f GB", path, target, size / 1e9)
    try:
        with (
            gzip.open(path) as packed,
            complete_file(target) as unfinished,
            unfinished.open("wb") as file,
        ):
            shutil.copyfileobj(packed, file, _BLOCK_BYTES)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be uncompressed ({error}): download it again") from error
    except OSError as error:
        raise OSError(
            f"{target} cannot be written ({error.strerror}): make {path.parent} writable, or run"
            f" `gunzip -c {path}` into a folder that is"
        ) from error
    return target
