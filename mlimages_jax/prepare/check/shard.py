# SPDX-License-Identifier: BSD-3-Clause
"""Checks one file of records and its hash, and continues after damaged records.

ArrayRecord stores a hash of every chunk. With one record per chunk, as the builders write them, a
damaged byte raises an exception for that record only. The index is at the end of the file, so
nothing of a truncated file can be read.
"""

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from tqdm import tqdm

from mlimages_jax.data.dataset import Shard
from mlimages_jax.data.records import RandomAccess, Records
from mlimages_jax.files.checksums import sha256
from mlimages_jax.prepare.check.listed_rows import ListedRows
from mlimages_jax.prepare.check.record import CheckedRecord, RecordRules
from mlimages_jax.prepare.problems import Problem
from mlimages_jax.prepare.threads import in_threads

_ARRAY_RECORD_ERRORS = (RuntimeError, ValueError)


@dataclasses.dataclass(frozen=True)
class ShardChecker:
    """Checks shards one after the other.

    Attributes:
        rules: Rules for the records.
        checksums: SHA-256 by file name; None: do not check hashes.
        listed: The list that the set was built from; None: do not compare.
        pool: Threads that read, decode and hash.
        bar: Progress bar that counts records.
    """

    rules: RecordRules
    checksums: dict[str, str] | None
    listed: ListedRows | None
    pool: ThreadPoolExecutor
    bar: tqdm

    def problems(self, shard: Shard, numbers: Sequence[int] | None = None) -> Iterator[Problem]:
        """Yields the problems of a file.

        Args:
            shard: The file.
            numbers: Numbers of the records to check; None: all.
        """
        if not shard.path.exists():
            yield _about(shard, "missing_shard", "no such file: copy it again, or rebuild the set")
            return
        # Hashed in another thread while the records are decoded.
        digest = None if self.checksums is None else self.pool.submit(sha256, shard.path)
        try:
            records = Records([os.fspath(shard.path)])
        except _ARRAY_RECORD_ERRORS as error:
            yield _about(shard, "unreadable", f"truncated, or not an ArrayRecord file: {error}")
        else:
            if len(records) != shard.num_records:
                message = f"{len(records)} records, but dataset_info.json says {shard.num_records}"
                yield _about(shard, "count", message)
            yield from self._record_problems(shard, records, numbers)
        if digest is not None:
            yield from self._hash_problems(shard, digest)

    def _record_problems(
        self, shard: Shard, records: RandomAccess, numbers: Sequence[int] | None
    ) -> Iterator[Problem]:
        rows = None
        if self.listed is not None and (numbers is None or len(numbers)):
            rows = self.listed.of_shard(shard.number)
        wanted = range(len(records)) if numbers is None else numbers
        readable = (number for number in wanted if number < len(records))
        check = functools.partial(_check, records, self.rules)
        all_named = True
        for number, future in in_threads(self.pool, check, readable):
            record = future.result()
            self.bar.update()
            found = list(record.found)
            if rows is not None and record.name and (difference := rows.take(record)):
                found.append(("list", difference))
            all_named &= bool(record.name)
            for problem, message in found:
                yield Problem(shard.path.name, number, record.name, problem, message)
        # A record whose name cannot be read may be any of the rows that are left.
        if rows is not None and numbers is None and all_named:
            for name in rows.left():
                message = "a row of the list without a record, which skipped.tsv does not list"
                yield Problem(shard.path.name, None, name, "list", message)

    def _hash_problems(self, shard: Shard, digest: "Future[str]") -> Iterator[Problem]:
        assert self.checksums is not None
        expected = self.checksums.get(shard.path.name)
        if expected is None:
            yield _about(shard, "hash", "not listed in checksums.txt")
            return
        try:
            if digest.result() != expected:
                yield _about(shard, "hash", "its SHA-256 differs from checksums.txt")
        except OSError as error:
            yield _about(shard, "hash", f"cannot be read: {error}")


def _about(shard: Shard, problem: str, message: str) -> Problem:
    return Problem(shard.path.name, None, "", problem, message)


def _check(records: RandomAccess, rules: RecordRules, number: int) -> CheckedRecord:
    try:
        data = records[number]
    except _ARRAY_RECORD_ERRORS as error:
        return CheckedRecord("", {}, [("unreadable", str(error.__cause__ or error))])
    return rules.check(data)
