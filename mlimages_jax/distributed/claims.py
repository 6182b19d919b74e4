# SPDX-License-Identifier: BSD-3-Clause
"""Divides work among processes that know nothing of each other: each claims what it does next.

A claim is a lock beside the work, in a folder on a disk or in a bucket, see `workdir_lock` and
`object_lock`: it ends with its process, on a disk at once, in a bucket after a silence. Two
processes may believe that they hold one (of which one was cut off from the network), so work under
a claim has to be harmless when done twice.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from absl import logging

from mlimages_jax.distributed import object_lock, preemption
from mlimages_jax.distributed.process_identity import Owner
from mlimages_jax.distributed.workdir_lock import FileLock, HeldElsewhereError
from mlimages_jax.files.file_locks import NO_LOCKS
from mlimages_jax.files.remote import is_remote

SUFFIX = ".claim"  # of the files that are claims
POLL_SECONDS = 2.0  # between two looks at what others do


class ClaimError(RuntimeError):
    """The folder is in a place where nothing can be claimed; the message names it."""


class Claim(Protocol):
    """Work that is ours until it is released."""

    def release(self) -> None:
        """Leaves the work to whoever claims it next."""
        ...


class Claims:
    """Claims of this process in one folder.

    Args:
        folder: Path or URL of the folder, which need not exist.
        task: What this process does, for messages.

    Raises:
        ClaimError: If the storage has no conditional writes that we know how to make.
    """

    def __init__(self, folder: str | os.PathLike[str], *, task: str):
        self._folder, self._task = os.fspath(folder), task
        self._attempts: dict[str, object_lock.Attempts] = {}
        if is_remote(folder) and not self._folder.startswith("gs://"):
            raise ClaimError(
                f"{folder}: work can be divided through gs:// buckets and disks only, as our "
                "clients of others have no conditional writes: give one of these, or let one "
                "process do it (an export: --config.elastic=False)"
            )

    def attempt(self, name: str) -> Claim | None:
        """Claims a name; None if another process has it, as far as is known now.

        Raises:
            ClaimError: If the disk has no locks, or the bucket's library is missing.
        """
        place = f"{self._folder}/{name}{SUFFIX}"
        try:
            return self._of_object(place) if is_remote(place) else self._of_file(Path(place))
        except ImportError as error:
            raise ClaimError(f"{self._folder}: {error}: pip install gcsfs") from error

    @contextlib.contextmanager
    def held(self, name: str, *, unless: Callable[[], bool]) -> Iterator[bool]:
        """Waits for a claim, which is held in the block.

        Args:
            name: What to claim.
            unless: Asked while another process holds it, whether the wait is over because the work
                is done.

        Yields:
            Whether the claim is ours; otherwise the work was done.

        Raises:
            Preempted: If this process was asked to stop while it waited.
        """
        waiting = False
        while (claim := self.attempt(name)) is None:
            if unless():
                yield False
                return
            preemption.check()
            if not waiting:
                logging.info("%s: waiting for another process to end: %s", self._folder, name)
            waiting = True
            time.sleep(POLL_SECONDS)
        try:
            yield True
        finally:
            claim.release()

    def _of_file(self, path: Path) -> Claim | None:
        try:
            return FileLock(path, Owner.this(self._task))
        except HeldElsewhereError:
            return None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            raise ClaimError(
                f"{self._folder}: its file system has no locks ({error.strerror}), with which work "
                "is divided: give another folder, or a gs:// bucket"
            ) from error

    def _of_object(self, url: str) -> Claim | None:
        if url not in self._attempts:
            self._attempts[url] = object_lock.Attempts(url, Owner.this(self._task))
        claim = self._attempts[url].once(lost=lambda owner: _warn(url, owner))
        if claim:
            del self._attempts[url]  # the next claim is another one
        return claim


def _warn(url: str, owner: Owner | None) -> None:
    """Says that a claim is lost; the work goes on, since it is harmless when done twice."""
    logging.warning("%s was taken over by %s", url, owner or "another process")
