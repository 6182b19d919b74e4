# SPDX-License-Identifier: BSD-3-Clause
"""Runs many processes as one program: they start and end together and never wait for a lost one.

jax itself aborts a process (SIGABRT) when another has been silent for HEARTBEAT_SECONDS or when
process 0, which hosts the coordination service, is gone. This module and `peer_watch` add readable
messages, and a process that fails tells the others, which then exit immediately.
"""

import collections
import contextlib
import os
import socket
import sys
import threading
import traceback
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh

from mlimages_jax.distributed import collectives, coordination, exit_codes, preemption, sharding
from mlimages_jax.distributed.peer_watch import AGAIN as AGAIN
from mlimages_jax.distributed.peer_watch import HEARTBEAT_SECONDS as HEARTBEAT_SECONDS
from mlimages_jax.distributed.peer_watch import LOST_EXIT_CODE as LOST_EXIT_CODE
from mlimages_jax.distributed.peer_watch import PeerWatch
from mlimages_jax.distributed.preemption import Preempted

CRASH_EXIT_CODE = exit_codes.CRASH
STEPS_AHEAD = 4  # max. steps the host dispatches ahead of the device, hence delay of a stop

_PEER_WORDS = (
    "barrier",
    "connection",
    "deadline_exceeded",
    "gloo",
    "nccl",
    "socket",
    "unavailable",
)


class PeerError(RuntimeError):
    """The processes cannot be connected."""


@contextlib.contextmanager
def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: float = 300,
) -> Iterator[None]:
    """Joins the other processes, if any; an error inside the block ends all of them.

    Enter it before jax touches a device. Without arguments jax finds the other processes by itself
    on TPU VMs, under SLURM with more than one task, MPI and Kubernetes; on a single machine nothing
    happens.

    Args:
        coordinator_address: host:port of process 0, where jax cannot find it by itself.
        num_processes: Number of processes.
        process_id: Number of this process, from 0.
        timeout: Seconds to wait for the other processes to join.

    Raises:
        PeerError: Some of the arguments are missing or invalid, or jax cannot connect.
        coordination.UnknownJaxError: This version of jax coordinates processes in another way.
    """
    _check(coordinator_address, num_processes, process_id)
    if coordinator_address is not None:
        coordination.check()
    _connect(coordinator_address, num_processes, process_id, timeout=timeout)
    if not collectives.is_one_of_many():
        yield
        return
    coordination.check()
    # Logged up front: if process 0 is lost, jax may abort this process before it can log anything.
    logging.info(
        "joined the other processes at %s. If one is lost, jax ends the rest: 'Terminating process "
        "because the JAX distributed service detected fatal errors'. %s",
        coordination.membership().address, AGAIN,
    )  # fmt: skip
    watch = PeerWatch()
    try:
        yield
    except Preempted as stop:
        if not stop.agreed:
            watch.leave(preemption.EXIT_CODE, "was asked to stop")
        raise
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr, flush=True)
            watch.leave(1, f"exited with {error.code}")
        raise
    except BaseException as error:  # also Ctrl-C: the others must hear of it
        traceback.print_exc()
        lost = isinstance(error, jax.errors.JaxRuntimeError) and _is_of_a_peer(str(error))
        if lost:
            watch.end_if_told()  # the lost process may have reported the actual cause
            print(f"error: most likely another process was lost. {AGAIN}.", file=sys.stderr)
        code = LOST_EXIT_CODE if lost else CRASH_EXIT_CODE
        watch.leave(code, f"failed with {type(error).__name__}: {error}")
    finally:
        watch.stop()


def log_layout(mesh: Mesh, *, batch_size: int, groups: int) -> None:
    """Logs processes, devices, mesh and batch layout on one line.

    Args:
        mesh: Mesh over all devices.
        batch_size: Images in a global batch.
        groups: Statistics groups in a global batch.
    """
    logging.info(
        "process %d of %d with %d of %d %s devices (%s), mesh %s; batch %d, %d of them here, in "
        "%d groups",
        jax.process_index(), jax.process_count(), jax.local_device_count(), jax.device_count(),
        jax.default_backend(), jax.devices()[0].device_kind, dict(mesh.shape), batch_size,
        batch_size // jax.process_count(), groups,
    )  # fmt: skip


class StopRequest:
    """Stops all processes at the same step when one of them was asked to stop.

    Every call dispatches a tiny program, any(asked) over all processes, and reads the result of the
    call STEPS_AHEAD earlier, so the host never waits for the current step. All processes read the
    same result, regardless of clocks and the order of signals. All processes must therefore make
    the same number of calls.

    Args:
        mesh: Mesh over all devices.
    """

    def __init__(self, mesh: Mesh):
        self._place = sharding.by_example(mesh)
        self._any = jax.jit(jnp.any, out_shardings=sharding.replicated(mesh))
        self._answers: collections.deque[jax.Array] = collections.deque()

    def check(self) -> None:
        """Checks for a stop request; call it after every training step and evaluation batch.

        Raises:
            Preempted: A process was asked to stop; raised on all processes at the same call.
        """
        if jax.process_count() == 1:
            stop = preemption.received()
        else:
            # One value per device, because the array is sharded over all of them.
            asked = np.full(jax.local_device_count(), preemption.received())
            asked = jax.make_array_from_process_local_data(self._place, asked)
            self._answers.append(self._any(asked))
            stop = len(self._answers) > STEPS_AHEAD and bool(self._answers.popleft())
        if stop:
            raise Preempted(agreed=True)


def _check(address: str | None, count: int | None, number: int | None) -> None:
    arguments = {"coordinator_address": address, "num_processes": count, "process_id": number}
    missing = [f"--{name}" for name, value in arguments.items() if value is None]
    if len(missing) == len(arguments):
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


def _connect(address: str | None, count: int | None, number: int | None, *, timeout: float) -> None:
    """Connects to process 0; ends this process if the others do not join in time."""
    if address is None and os.environ.get("SLURM_NTASKS") == "1":
        return  # jax would start a cluster of one task and use only one of the devices
    # jax and Orbax each count steps in their own handling of SIGTERM, and their counts disagree;
    # `StopRequest` does this instead.
    jax.config.update("jax_enable_preemption_service", False)
    # jax's own timeout is an abort that does not say for whom the process has waited.
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
            # A given address decides alone: SLURM or Kubernetes around it may describe another
            # cluster.
            cluster_detection_method=None if address is None else "deactivate",
        )
    except ValueError as error:
        # jax found no cluster to join and asks for an address: this is a single machine.
        if address is not None or "should be defined" not in str(error):
            raise
    except RuntimeError as error:
        raise PeerError(f"process {number} at {address}: {error}") from error
    finally:
        late.cancel()


def _is_of_a_peer(message: str) -> bool:
    """Returns whether jax failed because another process is missing."""
    return any(word in message.lower() for word in _PEER_WORDS)


def _end_late(seconds: float) -> None:
    """Prints who waited for whom and ends the process, whose main thread is blocked in jax."""
    me = coordination.membership()
    address, number, count = me.address, me.number, me.count
    if address is None:
        missing = "the addresses of the other processes (jax asks the cluster)"
    elif number == 0:
        missing = f"the other {count - 1} processes to connect to {address}"
    elif _answers(address):
        missing = f"others: process 0 answers at {address}, but not all {count} have connected"
    else:
        missing = f"process 0, which does not answer at {address}"
    print(
        f"error: process {number} of {count} has waited {seconds:.0f} s for {missing}. Check that "
        "all of them were started, with the same address and number of processes and each with its "
        "own --process_id, that the others can reach process 0 at this address, and that no "
        "firewall blocks the port; --peer_timeout=SECONDS waits longer",
        file=sys.stderr,
        flush=True,
    )
    os._exit(LOST_EXIT_CODE)  # sys.exit would end this thread only


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError:
        return False
    return True
