# SPDX-License-Identifier: BSD-3-Clause
"""Which threads read files on a disk."""

import io
import threading
from pathlib import Path

import pytest

from mlimages_jax.files.object_folder import ObjectFolder


def noted(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Returns a set that gets every thread that reads by `ObjectFolder.open` or `Path.open`."""
    threads: set[int] = set()

    class Noting(io.FileIO):
        def read(self, *arguments):
            threads.add(threading.get_ident())
            return super().read(*arguments)

        def readinto(self, buffer):
            threads.add(threading.get_ident())
            return super().readinto(buffer)

    real = Path.open

    def opened(self, mode="r", *arguments, **options):
        return Noting(self) if mode == "rb" else real(self, mode, *arguments, **options)

    monkeypatch.setattr(ObjectFolder, "open", lambda self, name: Noting(self.path(name)))
    monkeypatch.setattr(Path, "open", opened)
    return threads
