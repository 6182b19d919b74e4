# SPDX-License-Identifier: BSD-3-Clause
"""Many processes as one program: they begin together, end together, and none waits for a lost one.

jax itself ends a process (SIGABRT) when another has been silent for HEARTBEAT_SECONDS, or when
process 0, where all meet, is gone. What is added here: words for a person, and a process with an
error of its own tells the others, which then end at once.
"""

import collections
import contextlib
import itertools
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax._src import distributed as jax_distributed  # the client is not public; Orbax does the same
from jax.sharding import Mesh

from mlimages_jax.distributed import exit_codes, preemption, sharding
from mlimages_jax.distributed.preemption import Preempted

CRASH_EXIT_CODE = exit_codes.CRASH
LOST_EXIT_CODE = 76  # another process was lost, never came, or failed
HEARTBEAT_SECONDS = 30  # of silence until a process counts as lost
STEPS_AHEAD = 4  # of the host before the device, at most: what a stop has to wait for

_END = "mlimages_jax/end"  # key: why a process ended
_BEAT = "mlimages_jax/beat/"  # keys: one a process
_ROUND_MS = 1_000
_DAY_MS = 86_400_000
_SILENT_ROUNDS = HEARTBEAT_SECONDS // 2  # until a warning
_PEER_WORDS = (
    "barrier",
    "connection",
    "deadline_exceeded",
    "gloo",
    "nccl",
    "socket",
    "unavailable",
)
_LAST_WORDS_SECONDS = 2.0  # for a process's own error, which often has the same cause
AGAIN = (
    "Nothing is lost but the steps since the last save: start the same command again on all "
    "machines"
)


_exchanges = itertools.count()


class PeerError(RuntimeError):
    """The processes cannot begin together."""


@contextlib.contextmanager
def together(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: float = 300,
) -> Iterator[None]:
    """Joins the other processes, if there are any; inside, an error of one ends all of them.

    Enter it before jax touches a device. Without arguments jax finds the others by itself on TPU
    VMs, under SLURM with more than one task, MPI, and Kubernetes; on a machine of its own nothing
    happens.

    Args:
        coordinator_address: host:port of process 0, on hosts without any of these.
        num_processes: how many there are.
        process_id: which one this is.
        timeout: seconds to wait for the others to come.

    Raises:
        PeerError: for arguments of which one lacks, or which cannot be.
    """
    _check(coordinator_address, num_processes, process_id)
    _initialise(coordinator_address, num_processes, process_id, timeout=timeout)
    if not jax.distributed.is_initialized() or jax_distributed.global_state.num_processes == 1:
        yield
        return
    # Said now: where process 0 is lost, jax may end this one before it can say a word.
    logging.info(
        "joined the others at %s. Should one be lost, jax ends the rest: 'Terminating process "
        "because the JAX distributed service detected fatal errors'. %s",
        jax_distributed.global_state.coordinator_address, AGAIN,
    )  # fmt: skip
    watch = _Watch()
    try:
        yield
    except Preempted as stop:
        if not stop.agreed:
            watch.leave(preemption.EXIT_CODE, "was asked to end")
        raise
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr, flush=True)
            watch.leave(1, f"ended with {error.code}")
        raise
    except BaseException as error:
        traceback.print_exc()
        lost = isinstance(error, jax.errors.JaxRuntimeError) and _is_of_a_peer(str(error))
        if lost:
            watch.end_if_told()  # another's reason is the better one
            print(f"error: most likely another process was lost. {AGAIN}.", file=sys.stderr)
        code = LOST_EXIT_CODE if lost else CRASH_EXIT_CODE
        watch.leave(code, f"ended with {type(error).__name__}: {error}")
    finally:
        watch.stop()


def log_layout(mesh: Mesh, *, batch_size: int, groups: int) -> None:
    """One line that says who is who.

    Args:
        mesh: over all devices.
        batch_size: global.
        groups: in it.
    """
    logging.info(
        "process %d of %d with %d of %d %s devices (%s), mesh %s; batch %d, %d of them here, in "
        "%d groups",
        jax.process_index(), jax.process_count(), jax.local_device_count(), jax.device_count(),
        jax.default_backend(), jax.devices()[0].device_kind, dict(mesh.shape), batch_size,
        batch_size // jax.process_count(), groups,
    )  # fmt: skip


def meet(place: str) -> None:
    """Waits until all processes are here, for as long as they live.

    Before the first step: one may find in the cache what another compiles for minutes, and the
    devices' own connections wait for half a minute only.

    Args:
        place: its name, another one at every call.
    """
    if jax.process_count() > 1:
        client: Any = jax_distributed.global_state.client
        client.wait_at_barrier(place, _DAY_MS)


def is_one_of_many() -> bool:
    """Whether other processes were joined; touches no device."""
    joined = jax.distributed.is_initialized()
    return bool(joined and (jax_distributed.global_state.num_processes or 1) > 1)


def process_number() -> int:
    """Which of the processes this is, from 0; touches no device."""
    return int(jax_distributed.global_state.process_id or 0) if is_one_of_many() else 0


def exchanged(text: str) -> list[str]:
    """What every process said, in their order; all of them call it equally often.

    Through the service of process 0, without any device: short texts, before the first step.
    """
    if not is_one_of_many():
        return [text]
    client: Any = jax_distributed.global_state.client
    place = f"mlimages_jax/said/{next(_exchanges)}"
    client.key_value_set(f"{place}/{process_number():06d}", f"={text}")
    client.wait_at_barrier(place, _DAY_MS)
    said = dict(client.key_value_dir_get(f"{place}/"))
    return [said[key].removeprefix("=") for key in sorted(said)]


class StopRequest:
    """Tells all processes to stop at the same place when one of them was asked to end.

    Every call starts a tiny program on the devices, any(asked?) over all processes, and reads the
    answer of the call STEPS_AHEAD before: the same number on every process, whatever their clocks
    and the order of the signals. Hence all processes must call it equally often.

    Args:
        mesh: over all devices.
    """

    def __init__(self, mesh: Mesh):
        self._place = sharding.by_example(mesh)
        self._any = jax.jit(jnp.any, out_shardings=sharding.replicated(mesh))
        self._answers: collections.deque[jax.Array] = collections.deque()

    def check(self) -> None:
        """Call it after every step and every batch.

        Raises:
            Preempted: on all processes at the same call.
        """
        if jax.process_count() == 1:
            stop = preemption.received()
        else:
            asked = np.full(jax.local_device_count(), preemption.received())
            asked = jax.make_array_from_process_local_data(self._place, asked)
            self._answers.append(self._any(asked))
            stop = len(self._answers) > STEPS_AHEAD and bool(self._answers.popleft())
        if stop:
            raise Preempted(agreed=True)


def _check(address: str | None, count: int | None, number: int | None) -> None:
    given = {"coordinator_address": address, "num_processes": count, "process_id": number}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return
    if missing:
        raise PeerError(
            f"{' and '.join(missing)} is missing: give all of --coordinator_address, "
            "--num_processes and --process_id, or none to let jax find the processes"
        )
    assert address is not None and count is not None and number is not None
    if not 0 <= number < count:
        raise PeerError(
            f"--process_id={number} with --num_processes={count}: number the processes from 0 to "
            f"{count - 1}"
        )
    if not address.rpartition(":")[0] or not address.rpartition(":")[2].isdigit():
        raise PeerError(
            f"--coordinator_address={address}: give the host of process 0 and a free port, "
            "HOST:PORT"
        )


def _initialise(
    address: str | None, count: int | None, number: int | None, *, timeout: float
) -> None:
    """Connects to process 0; ends this process when the others have not come in time."""
    if address is None and os.environ.get("SLURM_NTASKS") == "1":
        return  # jax would join itself, and take one of the devices only
    # jax's own service for SIGTERM counts steps, and so does Orbax, differently: see `StopRequest`.
    jax.config.update("jax_enable_preemption_service", False)
    late = threading.Timer(timeout, _end_late, [timeout])
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            address,
            count,
            number,
            initialization_timeout=round(timeout) + 60,  # jax's own end is an abort
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
            cluster_detection_method=None if address is None else "deactivate",
        )
    except ValueError as error:
        if address is not None or "should be defined" not in str(error):
            raise
    except RuntimeError as error:
        raise PeerError(f"process {number} at {address}: {error}") from error
    finally:
        late.cancel()


def _is_of_a_peer(message: str) -> bool:
    """Whether jax failed for want of another process."""
    return any(word in message.lower() for word in _PEER_WORDS)


def _end_late(seconds: float) -> None:
    """Says who waited for whom, and ends the process, which waits inside of jax."""
    state = jax_distributed.global_state
    address, number, count = state.coordinator_address, state.process_id, state.num_processes
    if address is None:
        missing = "where the other processes are (jax asks the cluster)"
    elif number == 0:
        missing = f"the other {count - 1} processes to come to {address}"
    elif _answers(address):
        missing = f"others: process 0 is there at {address}, but not all {count} have come"
    else:
        missing = f"process 0, which does not answer at {address}"
    print(
        f"error: process {number} of {count} has waited {seconds:.0f} s for {missing}. Check that "
        "all of them were started, with the same address and number of processes and each with its "
        "own --process_id, that the address is the one of process 0 as the others see it, and that "
        "no firewall closes the port; --peer_timeout=SECONDS waits longer",
        file=sys.stderr,
        flush=True,
    )
    os._exit(LOST_EXIT_CODE)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError:
        return False
    return True


class _Watch:
    """A thread that learns, through the service of process 0, how the other processes fare."""

    def __init__(self) -> None:
        state = jax_distributed.global_state
        self._client: Any = state.client
        self._number = state.process_id
        self._stopped = threading.Event()
        self._beats: dict[str, tuple[str, int]] = {}  # key -> last value, rounds without a change
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped.set()
        self._thread.join(10)

    def leave(self, code: int, why: str) -> None:
        """Tells the others, and ends this process with an exit code; does not return."""
        self.stop()
        line = (why.strip().splitlines() or [""])[0][:1000]
        with contextlib.suppress(
            jax.errors.JaxRuntimeError
        ):  # another was faster, or process 0 is gone
            self._client.key_value_set(_END, f"{code} process {self._number} {line}")
            if self._number == 0:  # the others hear it from here
                time.sleep(2 * _LAST_WORDS_SECONDS)
        _end(code)

    def end_if_told(self) -> None:
        """Ends this process when another has told why it ended, and its reason is known."""
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            _end_with(self._client.blocking_key_value_get(_END, _ROUND_MS))

    def _run(self) -> None:
        rounds = 0
        while not self._stopped.is_set():
            try:
                end = self._client.blocking_key_value_get(_END, _ROUND_MS)
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    self._end_lost()
            else:
                self._stopped.wait(_LAST_WORDS_SECONDS)  # it may have an error of its own
                if not self._stopped.is_set():
                    _end_with(end)
            rounds += 1
            if rounds % 5 == 0:
                self._beat(rounds)

    def _beat(self, rounds: int) -> None:
        """Says that this process lives, and warns of those that are silent."""
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self._client.key_value_set(f"{_BEAT}{self._number}", str(rounds), allow_overwrite=True)
            for key, value in self._client.key_value_dir_get(_BEAT):
                before, silent = self._beats.get(key, (value, 0))
                silent = silent + 5 if value == before else 0
                self._beats[key] = (value, silent)
                if silent == _SILENT_ROUNDS:
                    logging.warning(
                        "process %s has been silent for %d s. If it is lost, jax ends the others "
                        "in another %d s. %s.", key.rpartition("/")[2], silent,
                        HEARTBEAT_SECONDS, AGAIN,
                    )  # fmt: skip

    def _end_lost(self) -> None:
        if not self._stopped.is_set():
            os.write(
                2,
                f"error: process 0, where all processes meet, is gone. {AGAIN}.\n".encode(),
            )
            _end(LOST_EXIT_CODE)


def _end_with(end: str) -> None:
    """Ends this process because another has ended, as it told."""
    code, _, why = end.partition(" ")
    asked = int(code) == preemption.EXIT_CODE
    print(f"{'' if asked else 'error: '}{why}. {AGAIN}.", file=sys.stderr, flush=True)
    _end(preemption.EXIT_CODE if asked else LOST_EXIT_CODE)


def _end(code: int) -> None:
    """Ends the process without waiting for the others, as an orderly end would."""
    logging.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
