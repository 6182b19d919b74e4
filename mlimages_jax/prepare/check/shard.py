# SPDX-License-Identifier: BSD-3-Clause
"""Reads one file of records back, with its hash, and past whatever is damaged.

ArrayRecord keeps a hash of every chunk. With one record a chunk, as the builders write them, a
damaged byte is an exception for that record alone. The index is at the end of the file, so that
nothing of a truncated file can be read.
"""

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from tqdm import tqdm

from mlimages_jax.data.dataset import RandomAccess, Records, Shard
from mlimages_jax.prepare.built_set import sha256
from mlimages_jax.prepare.check.listed_rows import ListedRows
from mlimages_jax.prepare.check.record import CheckedRecord, RecordRules
from mlimages_jax.prepare.problems import Problem
from mlimages_jax.prepare.threads import in_threads

_ARRAY_RECORD_ERRORS = (RuntimeError, ValueError)


@dataclasses.dataclass(frozen=True)
class ShardChecker:
    """Checks shards one after the other.

    Attributes:
        rules: for their records.
        checksums: SHA-256 by file name; None: hashes are not looked at.
        listed: the list they were built from; None: do not compare.
        pool: threads that read, decode and hash.
        bar: counts records.
    """

    rules: RecordRules
    checksums: dict[str, str] | None
    listed: ListedRows | None
    pool: ThreadPoolExecutor
    bar: tqdm

    def problems(self, shard: Shard, numbers: Sequence[int] | None = None) -> Iterator[Problem]:
        """Finds what is wrong with a file.

        Args:
            shard: the file.
            numbers: of the records to look at; None: all.
        """
        if not shard.path.exists():
            yield _about(shard, "missing_shard", "there is no such file: get it, or build anew")
            return
        digest = None if self.checksums is None else self.pool.submit(sha256, shard.path)
        try:
            records = Records([os.fspath(shard.path)])
        except _ARRAY_RECORD_ERRORS as error:
            yield _about(shard, "unreadable", f"truncated, or no ArrayRecord file: {error}")
        else:
            if len(records) != shard.num_records:
                message = f"{len(records)} records, {shard.num_records} in dataset_info.json"
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
        if rows is not None and numbers is None and all_named:
            for name in rows.left():
                message = "the list has a row for this shard, skipped.tsv none, and no record is it"
                yield Problem(shard.path.name, None, name, "list", message)

    def _hash_problems(self, shard: Shard, digest: "Future[str]") -> Iterator[Problem]:
        assert self.checksums is not None
        expected = self.checksums.get(shard.path.name)
        if expected is None:
            yield _about(shard, "hash", "checksums.txt has no line for it")
            return
        try:
            if digest.result() != expected:
                yield _about(shard, "hash", "its SHA-256 is not that of checksums.txt")
        except OSError as error:
            yield _about(shard, "hash", f"it cannot be read: {error}")


def _about(shard: Shard, problem: str, message: str) -> Problem:
    return Problem(shard.path.name, None, "", problem, message)


def _check(records: RandomAccess, rules: RecordRules, number: int) -> CheckedRecord:
    try:
        data = records[number]
    except _ARRAY_RECORD_ERRORS as error:
        return CheckedRecord("", {}, [("unreadable", str(error.__cause__ or error))])
    return rules.check(data)
