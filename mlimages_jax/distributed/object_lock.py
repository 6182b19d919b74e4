# SPDX-License-Identifier: BSD-3-Clause
"""A lock on object storage: an object made only where there is none, kept alive by a thread.

Every change names the generation that it replaces, so that of two that try one fails. A holder
replaces its object every BEAT_SECONDS; one that has not done so for TAKEOVER_SECONDS, by the clock
of whoever watches, is dead, as one that had no network for so long: it finds its object replaced
and ends, since two would corrupt what both write.
"""

import os
import sys
import threading
import time
from typing import Any
from urllib.parse import quote

import fsspec
from absl import logging

from mlimages_jax.distributed import preemption
from mlimages_jax.distributed.process_identity import Owner

BEAT_SECONDS = 10
TAKEOVER_SECONDS = 60
LOST_EXIT_CODE = 1  # another one trains here now; a restart would only disturb it
_POLL_SECONDS = 1


class HeldElsewhereError(RuntimeError):
    """A living process holds the lock.

    Attributes:
        owner: of it; None where the object does not say.
    """

    def __init__(self, owner: Owner | None):
        super().__init__(str(owner))
        self.owner = owner


class ObjectLock:
    """A lock that is held from here on until `release`.

    Args:
        url: of the object, gs://bucket/name.
        owner: this process.

    Raises:
        HeldElsewhereError: another process holds it and lives.
        Preempted: asked to end while it waited for a sign of life.
        ImportError: what reaches such a URL is not installed.
    """

    def __init__(self, url: str, owner: Owner):
        self._object = _Object(url)
        self._owner = owner
        self._url = url
        self._generation = self._take()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lock", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Lets the next one in."""
        self._ended.set()
        self._thread.join()
        try:
            self._object.delete(self._generation)
        except Exception as error:  # a later run takes it over
            logging.warning("%s could not be removed: %s", self._url, error)

    def _take(self) -> str:
        since, seen = time.monotonic(), ""
        while True:
            if generation := self._object.write(self._owner.text(), replaced="0"):
                return generation
            generation, owner = self._object.read()
            if not generation:
                continue  # released meanwhile
            if owner and owner.token == self._owner.token:
                return generation  # ours: the answer to the first try was lost
            if seen and generation != seen:
                raise HeldElsewhereError(owner)
            if not seen:
                since, seen = time.monotonic(), generation
                if not (owner and owner.is_known_dead()):
                    logging.info(
                        "%s is held by %s: looking for a sign of life, %d s at most", self._url,
                        owner or "an unknown process", TAKEOVER_SECONDS,
                    )  # fmt: skip
            dead = bool(owner and owner.is_known_dead())
            if dead or time.monotonic() - since >= TAKEOVER_SECONDS:
                logging.warning("%s: %s is gone; taken over", self._url, owner)
                if generation := self._object.write(self._owner.text(), replaced=generation):
                    return generation
                since, seen = time.monotonic(), ""  # another one was quicker
                continue
            preemption.check()
            time.sleep(_POLL_SECONDS)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                new = self._object.write(self._owner.text(), replaced=self._generation)
                if not new:
                    new, owner = self._object.read()
                    if not owner or owner.token != self._owner.token:
                        self._end(owner)
            except Exception as error:  # the network: another one finds out in time
                logging.warning("%s could not be kept alive: %s", self._url, error)
                continue
            self._generation = new

    def _end(self, owner: Owner | None) -> None:
        """Ends this process at once: whatever it writes from here on disturbs another one."""
        line = (
            f"error: {self._url} was taken over by {owner or 'somebody'}, since this process had "
            f"not been heard of for {TAKEOVER_SECONDS} s\n"
        )
        os.write(2, line.encode())
        sys.stdout.flush()
        os._exit(LOST_EXIT_CODE)


class _Object:
    """An object of Cloud Storage by its JSON API, as gcsfs signs in there.

    https://cloud.google.com/storage/docs/request-preconditions
    """

    def __init__(self, url: str):
        self._storage: Any = fsspec.filesystem("gcs")
        self._bucket, _, self._name = url.partition("://")[2].partition("/")

    def write(self, text: str, *, replaced: str) -> str:
        """Replaces a generation, "0" for none; returns the new one, "" where it is another one."""
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
        except (FileExistsError, FileNotFoundError):  # 412: another generation; 404: it is gone
            return ""
        return str(answer["generation"])

    def read(self) -> tuple[str, Owner | None]:
        """The generation, "" for none, and the process that it names."""
        where = ("b/{}/o/{}", self._bucket, self._name)
        try:
            found = self._storage.call("GET", *where, json_out=True)
            _, content = self._storage.call("GET", *where, alt="media")
        except FileNotFoundError:
            return "", None
        return str(found["generation"]), Owner.read(content)

    def delete(self, generation: str) -> None:
        """Removes a generation; nothing happens where it is another one."""
        where = ("b/{}/o/{}", self._bucket, self._name)
        try:
            self._storage.call("DELETE", *where, ifGenerationMatch=generation)
        except (FileExistsError, FileNotFoundError):
            return
