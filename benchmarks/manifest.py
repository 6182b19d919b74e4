# SPDX-License-Identifier: BSD-3-Clause
"""Question: does the manifest of a download stay fast and small as it grows to millions of rows?

Writes rows in batches of 400, as a download does. After every tenth of the rows it looks up 500
names, as a second run does. The peer is SQLite with a plain table without indices, filled with the
same rows: the difference is the cost of the indices.

    python benchmarks/manifest.py --rows 5000000
"""

import argparse
import hashlib
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from mlimages_jax.image_shards.outcome import OK, Image
from mlimages_jax.prepare.manifest import Manifest
from mlimages_jax.prepare.storing import file_name

BATCH = 400
QUESTION = 500
STEPS = 10


def row(number: int) -> Image:
    """Makes a row like those of a download; the order of names matches no index."""
    digest = hashlib.sha256(str(number).encode()).digest()
    url = f"https://farm{number % 9}.staticflickr.com/{number % 9973}/{digest[:8].hex()}_o.jpg"
    return Image(
        name=url, status=OK, time=1.8e9 + number, file=file_name(url), source="thumbnail",
        http_status=200, num_bytes=50_000 + number % 1000, sha256=digest, width=500, height=375,
        license="https://creativecommons.org/licenses/by/2.0/", author="A. Photographer",
    )  # fmt: skip


def batches(start: int, stop: int) -> Iterator[list[Image]]:
    """Yields rows `start` to `stop` in batches."""
    for first in range(start, stop, BATCH):
        yield [row(number) for number in range(first, min(first + BATCH, stop))]


class PlainTable:
    """A table without indices, the peer."""

    def __init__(self, path: Path):
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("CREATE TABLE pictures (name, status, time, file, sha256)")

    def put(self, images: list[Image]) -> None:
        """Appends rows."""
        self._db.execute("BEGIN")
        values = [(p.name, p.status, p.time, p.file, p.sha256) for p in images]
        self._db.executemany("INSERT INTO pictures VALUES (?, ?, ?, ?, ?)", values)
        self._db.execute("COMMIT")


def seconds_to_put(table: Manifest | PlainTable, start: int, stop: int) -> float:
    """Returns the time inside `put` alone, since generating the rows takes as long."""
    spent = 0.0
    for batch in batches(start, stop):
        begin = time.perf_counter()
        table.put(batch)
        spent += time.perf_counter() - begin
    return spent


def main() -> None:
    """Prints a line for every tenth of the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--folder", type=Path, help="folder on the disk to measure")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "manifest.sqlite"
        plain = PlainTable(Path(folder) / "plain.sqlite")
        print("|  rows | rows/s | x plain table | 500 names, ms | bytes a row |")
        print("| ---: | ---: | ---: | ---: | ---: |")
        with Manifest(path) as manifest:
            for step in range(STEPS):
                start, stop = (arguments.rows * i // STEPS for i in (step, step + 1))
                ours = seconds_to_put(manifest, start, stop)
                peer = seconds_to_put(plain, start, stop)
                # Spread over all rows so far: the latest ones alone would be in SQLite's cache.
                names = [row(i * stop // QUESTION).name for i in range(QUESTION)]
                begin = time.perf_counter()
                assert len(manifest.get(names)) == QUESTION
                asked = time.perf_counter() - begin
                print(
                    f"| {stop:,} | {(stop - start) / ours:,.0f} | {peer / ours:.2f} "
                    f"| {1000 * asked:.1f} | {path.stat().st_size / stop:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
