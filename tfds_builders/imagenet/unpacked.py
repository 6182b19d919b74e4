# SPDX-License-Identifier: BSD-3-Clause
"""A compressed archive as an uncompressed one beside it.

Gzip can only be read from its beginning, and a set is built from images in another order.
"""

import gzip
import shutil
import zlib
from pathlib import Path

from absl import logging

_BLOCK_BYTES = 1 << 20


def unpacked(path: Path) -> Path:
    """Returns the archive, uncompressed: itself, or `a.tar` beside `a.tar.gz`, made once.

    Raises:
      OSError: There is no room, or the folder cannot be written to; says what to do.
      ValueError: It cannot be uncompressed.
    """
    if path.suffix != ".gz":
        return path
    target = path.with_suffix("")
    if target.is_file():
        return target
    unfinished = target.with_name(f"{target.name}.unfinished")
    size = path.stat().st_size
    if shutil.disk_usage(path.parent).free < size:
        raise OSError(
            f"{path} has to be uncompressed beside itself, and there is no room for its"
            f" {size / 1e9:.1f} GB: make room, or run `gunzip {path}`, which takes its place"
        )
    logging.info("uncompressing %s to %s, once: %.1f GB", path, target, size / 1e9)
    try:
        with gzip.open(path) as packed, unfinished.open("wb") as file:
            shutil.copyfileobj(packed, file, _BLOCK_BYTES)
        unfinished.replace(target)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be uncompressed ({error}): get it anew") from error
    except OSError as error:
        raise OSError(
            f"{target} cannot be written ({error.strerror}): make {path.parent} writable, or run"
            f" `gunzip -c {path}` into a folder that is"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return target
