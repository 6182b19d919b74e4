# SPDX-License-Identifier: BSD-3-Clause
"""Monitors the other processes of a job, and ends this one when another has ended.

Processes talk through the key-value store of jax's coordination service, which process 0 hosts. It
works while the main thread is blocked in a collective program that will never finish.
"""

import contextlib
import os
import sys
import threading
import time

import jax
from absl import logging

from mlimages_jax.distributed import coordination, preemption

LOST_EXIT_CODE = 76  # another process was lost, never joined, or failed
HEARTBEAT_SECONDS = 30  # silence after which a process counts as lost
AGAIN = (
    "Only the steps since the last checkpoint are lost: run the same command again on all machines"
)
_END = "mlimages_jax/end"  # key whose value says why a process exited
_BEAT = "mlimages_jax/beat/"  # prefix of one key per process
_ROUND_MS = 1_000
_ROUNDS_A_BEAT = 3
# Without a heartbeat, before a warning. jax's own heartbeats are HEARTBEAT_SECONDS / 2 apart, so it
# may end the others that soon after a loss, and the warning has to come first.
_SILENT_ROUNDS = 9
_LAST_WORDS_SECONDS = 2.0  # for a process to report its own error, often of the same cause


class PeerWatch:
    """A thread that monitors the other processes; start it after they have joined."""

    def __init__(self) -> None:
        self._client = coordination.client()
        self._number = coordination.membership().number
        self._stopped = threading.Event()
        self._beats: dict[str, tuple[str, int]] = {}  # key -> (last value, rounds unchanged)
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stops the thread."""
        self._stopped.set()
        self._thread.join(10)

    def leave(self, code: int, why: str) -> None:
        """Reports to the other processes why this one ends, and exits; does not return.

        Args:
            code: Exit code of this process.
            why: What follows "process N" in the message to the others.
        """
        self.stop()
        line = (why.strip().splitlines() or [""])[0][:1000]
        with contextlib.suppress(
            jax.errors.JaxRuntimeError
        ):  # another process reported first, or process 0 is gone
            self._client.key_value_set(_END, f"{code} process {self._number} {line}")
            if self._number == 0:  # it hosts the service, from which the others must first read
                time.sleep(2 * _LAST_WORDS_SECONDS)
        _end(code)

    def end_if_told(self) -> None:
        """Exits if another process has reported why it exited."""
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            _end_with(self._client.blocking_key_value_get(_END, _ROUND_MS))

    def _run(self) -> None:
        rounds = 0
        while not self._stopped.is_set():
            try:
                end = self._client.blocking_key_value_get(_END, _ROUND_MS)
            except jax.errors.JaxRuntimeError as error:
                # Nobody has reported an end within the round, which is the usual case. Any other
                # error means that the service, and with it process 0, is gone.
                if "DEADLINE_EXCEEDED" not in str(error):
                    self._end_lost()
            else:
                # Give this process time to report an error of its own.
                self._stopped.wait(_LAST_WORDS_SECONDS)
                if not self._stopped.is_set():
                    _end_with(end)
            rounds += 1
            if rounds % _ROUNDS_A_BEAT == 0:
                self._beat(rounds)

    def _beat(self, rounds: int) -> None:
        """Publishes a heartbeat and warns about processes without one."""
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self._client.key_value_set(f"{_BEAT}{self._number}", str(rounds), allow_overwrite=True)
            # Compared with its former value, not with a clock: those of two hosts differ.
            for key, value in self._client.key_value_dir_get(_BEAT):
                before, silent = self._beats.get(key, (value, 0))
                silent = silent + _ROUNDS_A_BEAT if value == before else 0
                self._beats[key] = (value, silent)
                if silent == _SILENT_ROUNDS:
                    logging.warning(
                        "process %s has been silent for %d s. If it is lost, jax ends the others "
                        "within another %d s. %s.", key.rpartition("/")[2], silent,
                        HEARTBEAT_SECONDS - silent, AGAIN,
                    )  # fmt: skip

    def _end_lost(self) -> None:
        if not self._stopped.is_set():
            # Needs no lock, unlike logging and print: the main thread may be blocked anywhere.
            os.write(
                2,
                f"error: process 0, which coordinates the others, is gone. {AGAIN}.\n".encode(),
            )
            _end(LOST_EXIT_CODE)


def _end_with(end: str) -> None:
    """Exits because another process has exited, and prints its reason."""
    code, _, why = end.partition(" ")
    asked = int(code) == preemption.EXIT_CODE
    print(f"{'' if asked else 'error: '}{why}. {AGAIN}.", file=sys.stderr, flush=True)
    _end(preemption.EXIT_CODE if asked else LOST_EXIT_CODE)


def _end(code: int) -> None:
    """Exits at once, without the wait for other processes of an orderly shutdown."""
    logging.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
