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
from typing import NamedTuple

from mlimages_jax.data.dataset import Shard
from mlimages_jax.data.records import Records, read_in_place
from mlimages_jax.files.checksums import sha256
from mlimages_jax.files.object_folder import local_copy
from mlimages_jax.prepare.check.listed_rows import ShardRows
from mlimages_jax.prepare.check.record import CheckedRecord, RecordRules
from mlimages_jax.prepare.problems import Problem
from mlimages_jax.prepare.threads import in_threads

_ARRAY_RECORD_ERRORS = (RuntimeError, ValueError)


class CheckPart(NamedTuple):
    """What to check of a file.

    Attributes:
        shard: The file.
        numbers: Numbers of the records to check; None: all.
        rows: The rows of the list that the file was built from; None: do not compare.
    """

    shard: Shard
    numbers: Sequence[int] | None = None
    rows: ShardRows | None = None

    def __str__(self) -> str:  # in messages of an engine
        return str(self.shard.path)


class CheckedShard(NamedTuple):
    """What was found in a file.

    Attributes:
        problems: The problems, in the order of the records.
        num_records: Number of records checked, damaged ones included.
    """

    problems: list[Problem]
    num_records: int


@dataclasses.dataclass(frozen=True)
class ShardChecker:
    """Checks files, in any process: what it finds depends on nothing but the file and its part.

    Attributes:
        rules: Rules for the records.
        checksums: SHA-256 by file name; None: do not check hashes.
        threads: Number of threads that read, decode and hash.
    """

    rules: RecordRules
    checksums: dict[str, str] | None
    threads: int

    def check(self, part: CheckPart) -> CheckedShard:
        """Checks a file."""
        with ThreadPoolExecutor(self.threads) as pool:
            run = _Check(self.rules, self.checksums, pool, threads=self.threads)
            problems = list(run.problems(part))
        return CheckedShard(problems, run.num_records)


class _Check:
    """The check of one file; `num_records` is the number of records checked so far."""

    def __init__(
        self, rules: RecordRules, checksums: dict[str, str] | None, pool: ThreadPoolExecutor,
        *, threads: int,
    ):  # fmt: skip
        self.rules = rules
        self.checksums = checksums
        self.pool = pool
        self.threads = threads
        self.num_records = 0

    def problems(self, part: CheckPart) -> Iterator[Problem]:
        shard = part.shard
        if not shard.path.exists():
            yield _about(shard, "missing_shard", "no such file: copy it again, or rebuild the set")
            return
        if part.numbers is not None and self.checksums is None and read_in_place(shard.path):
            yield from self._problems_of(part, os.fspath(shard.path), None)
            return
        with local_copy(shard.path) as path:  # in a bucket, every record would be a request
            # Hashed in another thread while the records are decoded.
            digest = None if self.checksums is None else self.pool.submit(sha256, path)
            yield from self._problems_of(part, os.fspath(path), digest)

    def _problems_of(
        self, part: CheckPart, path: str, digest: "Future[str] | None"
    ) -> Iterator[Problem]:
        shard = part.shard
        try:
            records = Records([path])
        except _ARRAY_RECORD_ERRORS as error:
            yield _about(shard, "unreadable", f"truncated, or not an ArrayRecord file: {error}")
        else:
            if len(records) != shard.num_records:
                message = f"{len(records)} records, but dataset_info.json says {shard.num_records}"
                yield _about(shard, "count", message)
            yield from self._record_problems(part, records)
        if digest is not None:
            yield from self._hash_problems(shard, digest)

    def _record_problems(self, part: CheckPart, records: Records) -> Iterator[Problem]:
        shard, numbers, rows = part
        all_named = True
        for number, record in self._checked(records, numbers):
            self.num_records += 1
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

    def _checked(
        self, records: Records, numbers: Sequence[int] | None
    ) -> Iterator[tuple[int, CheckedRecord]]:
        wanted = range(len(records)) if numbers is None else numbers
        readable = [number for number in wanted if number < len(records)]
        blocks = records.blocks(readable, threads=self.threads)
        check = functools.partial(_check, records, self.rules)
        for block, future in in_threads(self.pool, check, blocks):
            yield from zip(block, future.result(), strict=True)

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


def _check(records: Records, rules: RecordRules, numbers: Sequence[int]) -> list[CheckedRecord]:
    return [_check_one(rules, data) for data in records.read(numbers)]


def _check_one(rules: RecordRules, data: bytes | Exception) -> CheckedRecord:
    if isinstance(data, Exception):
        return CheckedRecord("", {}, [("unreadable", str(data.__cause__ or data))])
    return rules.check(data)
