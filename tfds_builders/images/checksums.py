# SPDX-License-Identifier: BSD-3-Clause
"""The file of checksums beside the shards, as `sha256sum -c checksums.txt` reads it."""

from collections.abc import Mapping
from pathlib import Path


def write(path: Path, sha256: Mapping[str, str]) -> None:
    """Write one line a file: its SHA-256 in hexadecimal, two spaces, its name; by name."""
    lines = [f"{digest}  {name}\n" for name, digest in sorted(sha256.items())]
    path.write_text("".join(lines), encoding="utf-8")
