# SPDX-License-Identifier: BSD-3-Clause
"""gs://bucket for `epath` without a server: a folder, where appending to a file begins it anew."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from etils import epath
from etils.epath import testing

_OPERATIONS = ("exists", "isdir", "listdir", "makedirs", "mkdir", "remove")


@contextlib.contextmanager
def in_folder(folder: Path) -> Iterator[epath.Path]:
    """Yields gs://bucket, whose objects are the files below a folder until the block ends."""

    def local(path: str) -> str:
        return os.fspath(path).replace("gs://bucket", str(folder), 1)

    def translated(original, path, *arguments, **settings):
        return original(local(path), *arguments, **settings)

    def opened(original, path, mode):
        if path.startswith("gs://"):
            mode = mode.replace("a", "w")  # as gcsfs does
            if "w" in mode:
                Path(local(path)).parent.mkdir(parents=True, exist_ok=True)
        return original(local(path), mode)

    with testing.mock_epath(open=opened, **dict.fromkeys(_OPERATIONS, translated)):
        yield epath.Path("gs://bucket")
