# SPDX-License-Identifier: BSD-3-Clause
"""Writes the file of checksums next to the shards, for `sha256sum -c checksums.txt`."""

from collections.abc import Mapping
from pathlib import Path


def write(path: Path, sha256: Mapping[str, str]) -> None:
    """Writes one line per file, by name: SHA-256 in hexadecimal, two spaces, file name."""
    lines = [f"{digest}  {name}\n" for name, digest in sorted(sha256.items())]
    path.write_text("".join(lines), encoding="utf-8")
