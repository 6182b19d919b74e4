# SPDX-License-Identifier: BSD-3-Clause
"""Names of images by position; for worker processes in one block of bytes.

A list of 17.6 million names of 33 characters takes 1.6 GB, in each process: Python's strings have
49 bytes more than their characters, and a pointer. In one block they take 0.7 GB, and are sent to a
worker by copying it. Workers do not read them from the input again: parsing a list of that length
takes longer than receiving it, and listing a folder a request for each file.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Names(Protocol):
    """Names by position, such as a list of strings."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> str: ...


class PackedNames:
    """Names by position, unchangeable; may be pickled."""

    def __init__(self, names: Sequence[str]):
        encoded = [name.encode("utf-8", "surrogatepass") for name in names]
        self._bytes = b"".join(encoded)
        self._ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int, /) -> str:
        if not 0 <= index < len(self):
            raise IndexError(f"name {index} of {len(self)}")
        start = int(self._ends[index - 1]) if index else 0
        return self._bytes[start : int(self._ends[index])].decode("utf-8", "surrogatepass")
