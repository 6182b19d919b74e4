# SPDX-License-Identifier: BSD-3-Clause
"""A lock on object storage: an object created only if absent and kept alive by a thread.

Every write is conditional on the generation it replaces, so of two concurrent writers one fails.
The holder rewrites its object every BEAT_SECONDS. If it has not done so for TAKEOVER_SECONDS,
measured by the clock of the waiting process, it is considered dead and the lock is taken over. A
holder that was only cut off from the network for that long finds its object replaced and exits,
because two programs writing to the same workdir would corrupt it.
"""

import functools
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import fsspec
from absl import logging

from mlimages_jax.distributed import preemption
from mlimages_jax.distributed.process_identity import Owner

BEAT_SECONDS = 10
TAKEOVER_SECONDS = 60
LOST_EXIT_CODE = 1  # another program owns the workdir now; do not restart
_POLL_SECONDS = 1


class HeldElsewhereError(RuntimeError):
    """The lock is held by a running process.

    Attributes:
        owner: The process; None if the object does not name it.
    """

    def __init__(self, owner: Owner | None):
        super().__init__(str(owner))
        self.owner = owner


class Attempts:
    """Tries to take a lock without waiting, remembering between the calls what its holder did.

    Args:
        url: URL of the object, gs://bucket/name.
        owner: Description of this process.

    Attributes:
        holder: The process that held the lock when it was last tried; None if it is not known.
        alive: Whether that process has written since it was first seen.

    Raises:
        ImportError: The library that accesses such URLs is not installed.
    """

    def __init__(self, url: str, owner: Owner):
        self._object, self._url, self._owner = _Object(url), url, owner
        self.holder: Owner | None = None
        self.alive = False
        self._since, self._seen = 0.0, ""  # when we first saw this generation

    def once(self, *, lost: Callable[[Owner | None], object] | None = None) -> "ObjectLock | None":
        """Takes the lock if it is free or its holder dead; None: try again later.

        Args:
            lost: Called when another process has taken the lock over, with that process. None: this
                process exits, see `_exit`.
        """
        if generation := self._once():
            return ObjectLock(
                self._object, self._owner, generation, lost or functools.partial(_exit, self._url)
            )
        return None

    def _once(self) -> str:
        """Returns the generation of the object if it is ours now."""
        # Generation 0 means "only if there is no such object".
        if generation := self._object.write(self._owner.text(), replaced="0"):
            return generation
        generation, self.holder = self._object.read()
        if not generation:
            return ""  # released in the meantime
        if self.holder and self.holder.token == self._owner.token:
            return generation  # ours: the response to our first write was lost
        dead = bool(self.holder and self.holder.is_known_dead())
        if generation != self._seen:
            # The holder has written since we first looked, so it is alive. Only our own clock is
            # used: those of two machines may differ.
            self.alive = bool(self._seen) and not dead
            if not self._seen and not dead:
                logging.info(
                    "%s is held by %s: waiting up to %d s for its heartbeat", self._url,
                    self.holder or "an unknown process", TAKEOVER_SECONDS,
                )  # fmt: skip
            self._since, self._seen = time.monotonic(), generation
        if not dead and time.monotonic() - self._since < TAKEOVER_SECONDS:
            return ""
        logging.warning("%s: %s is dead; taking the lock over", self._url, self.holder)
        self._seen = ""  # if another process is faster
        return self._object.write(self._owner.text(), replaced=generation)


def take(url: str, owner: Owner) -> "ObjectLock":
    """Takes a lock, waiting until its holder is known to be alive or dead.

    Args:
        url: URL of the object, gs://bucket/name.
        owner: Description of this process.

    Raises:
        HeldElsewhereError: A running process holds the lock.
        Preempted: A stop was requested while waiting for the holder's heartbeat.
        ImportError: The library that accesses such URLs is not installed.
    """
    attempts = Attempts(url, owner)
    while (lock := attempts.once()) is None:
        if attempts.alive:
            raise HeldElsewhereError(attempts.holder)
        preemption.check()  # nothing has been done yet, so nothing needs saving
        time.sleep(_POLL_SECONDS)
    return lock


class ObjectLock:
    """A lock that is held, and kept alive, until `release`; see `take` and `Attempts`.

    Args:
        held: The object.
        owner: Description of this process, as written in the object.
        generation: Generation that was written.
        lost: Called when another process has taken the lock over.
    """

    def __init__(
        self,
        held: "_Object",
        owner: Owner,
        generation: str,
        lost: Callable[[Owner | None], object],
    ):
        self._object, self._owner, self._generation, self._lost = held, owner, generation, lost
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lock", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Releases the lock."""
        # The thread has to end first: a beat that finds the object deleted would take it for a
        # takeover.
        self._ended.set()
        self._thread.join()
        try:
            self._object.delete(self._generation)
        except Exception as error:  # harmless: a later run takes the lock over
            logging.warning("%s could not be removed: %s", self._object.url, error)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                new = self._object.write(self._owner.text(), replaced=self._generation)
                if not new:
                    # A failed condition need not mean a takeover: our previous write may have
                    # arrived although its response was lost. Then the object still has our token.
                    new, owner = self._object.read()
                    if not owner or owner.token != self._owner.token:
                        self._lost(owner)
                        return
            except Exception as error:  # network error: the next beat tries again
                logging.warning(
                    "%s: the heartbeat could not be written: %s", self._object.url, error
                )
                continue
            self._generation = new


def _exit(url: str, owner: Owner | None) -> None:
    """Exits at once: anything this process still writes could corrupt the new holder's run."""
    line = (
        f"error: {url} was taken over by {owner or 'another process'} because this "
        f"process sent no heartbeat for {TAKEOVER_SECONDS} s\n"
    )
    # os._exit, because sys.exit in a thread would end only that thread.
    os.write(2, line.encode())
    sys.stdout.flush()
    os._exit(LOST_EXIT_CODE)


class _Object:
    """An object on Cloud Storage, accessed by its JSON API with the credentials of gcsfs.

    https://cloud.google.com/storage/docs/request-preconditions
    """

    def __init__(self, url: str):
        self._storage: Any = fsspec.filesystem("gcs")
        self.url = url
        self._bucket, _, self._name = url.partition("://")[2].partition("/")

    def write(self, text: str, *, replaced: str) -> str:
        """Writes the object if its generation is `replaced` ("0": if it does not exist).

        Returns:
            The new generation; "" if the condition failed.

        Raises:
            FileNotFoundError: There is no such bucket.
        """
        # Not a write of gcsfs, which cannot be conditional on a generation.
        place = f"{self._storage._location}/upload/storage/v1/b/{quote(self._bucket)}/o"
        try:
            answer = self._storage.call(
                "POST",
                place,
                uploadType="media",
                name=self._name,
                ifGenerationMatch=replaced,
                data=text.encode(),
                headers={"Content-Type": "application/json"},
                json_out=True,
            )
        except FileExistsError:  # 412: other generation
            return ""
        except FileNotFoundError as error:  # 404: deleted, or nowhere to create it
            if replaced != "0":
                return ""
            raise FileNotFoundError(
                f"{self.url}: the bucket {self._bucket} does not exist: create it, or correct its "
                "name"
            ) from error
        return str(answer["generation"])

    def read(self) -> tuple[str, Owner | None]:
        """Returns the generation ("" if the object does not exist) and the process it names."""
        where = ("b/{}/o/{}", self._bucket, self._name)
        try:
            found = self._storage.call("GET", *where, json_out=True)
            _, content = self._storage.call("GET", *where, alt="media")
        except FileNotFoundError:
            return "", None
        return str(found["generation"]), Owner.read(content)

    def delete(self, generation: str) -> None:
        """Deletes the object if it still has this generation."""
        where = ("b/{}/o/{}", self._bucket, self._name)
        try:
            self._storage.call("DELETE", *where, ifGenerationMatch=generation)
        except (FileExistsError, FileNotFoundError):
            return
