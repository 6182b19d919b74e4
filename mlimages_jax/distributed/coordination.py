# SPDX-License-Identifier: BSD-3-Clause
"""Reaches jax's coordination service, the only place in this package that touches `jax._src`.

Process 0 hosts the service. It has a key-value store and barriers that work before a device is used
and while the main thread is blocked in a program that will never finish. Of it jax 0.10 to 0.12
publish `jax.distributed.initialize`, `is_initialized` and `shutdown` only: `jax.process_index`
starts the devices, and what `multihost_utils` offers runs on them. Orbax uses the same private
object. `check` says whether it looks as expected; a job of one process never needs it.
"""

import dataclasses
from typing import Any, Protocol

import jax

_KNOWN = "0.10 to 0.12"  # versions of jax that the tests of this module have passed with
_METHODS = (
    "blocking_key_value_get",
    "key_value_dir_get",
    "key_value_set",
    "wait_at_barrier",
)


class UnknownJaxError(RuntimeError):
    """The coordination service of this version of jax looks different."""


class Client(Protocol):
    """What this package uses of the connection to the service.

    Every method raises `jax.errors.JaxRuntimeError`, whose text begins with the kind of the error:
    DEADLINE_EXCEEDED when the time is over, ALREADY_EXISTS for a key that is set.
    """

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None:
        """Sets a key, which must not be set yet unless `allow_overwrite`."""

    def blocking_key_value_get(self, key: str, timeout_in_ms: int) -> str:
        """Returns the value of a key as soon as it is set."""

    def key_value_dir_get(self, key: str) -> list[tuple[str, str]]:
        """Returns keys that begin with a prefix, and their values."""

    def wait_at_barrier(self, barrier_id: str, timeout_in_ms: int) -> None:
        """Waits until all processes have come to a barrier, whose name is used only once."""


@dataclasses.dataclass(frozen=True)
class Membership:
    """The place of this process in its job, known before it has connected.

    Attributes:
        address: host:port of the service; None while jax asks the cluster for it.
        number: of this process, from 0.
        count: of all processes.
    """

    address: str | None
    number: int
    count: int


def membership() -> Membership:
    """Returns the place of this process, without touching a device; process 0 of 1 when alone.

    Raises:
        UnknownJaxError: See `check`.
    """
    state = _state()
    # A job that jax knows nothing of yet has None in some versions, 0 and 1 in others.
    return Membership(state.coordinator_address, state.process_id or 0, state.num_processes or 1)


def client() -> Client:
    """Returns the connection to the service.

    Raises:
        UnknownJaxError: See `check`.
        RuntimeError: This process has not joined others.
    """
    found: Client | None = _state().client
    if found is None:
        raise RuntimeError("this process is not connected to others: call jax.distributed first")
    return found


def check() -> None:
    """Checks that the service looks as this package expects, before processes depend on it.

    Raises:
        UnknownJaxError: It does not; says what is missing in which version of jax.
    """
    _state()
    try:
        from jax._src.lib import _jax

        kind = _jax.DistributedRuntimeClient
    except (ImportError, AttributeError) as error:
        raise _unknown(str(error)) from error
    if missing := [name for name in _METHODS if not hasattr(kind, name)]:
        raise _unknown(f"its client has no {', '.join(missing)}")


def _state() -> Any:
    """Returns jax's own record of the job."""
    try:
        from jax._src import distributed

        state = distributed.global_state
    except (ImportError, AttributeError) as error:
        raise _unknown(str(error)) from error
    names = ("client", "coordinator_address", "num_processes", "process_id")
    if missing := [name for name in names if not hasattr(state, name)]:
        raise _unknown(f"jax._src.distributed.global_state has no {', '.join(missing)}")
    return state


def _unknown(what: str) -> UnknownJaxError:
    return UnknownJaxError(
        f"jax {jax.__version__} coordinates processes in a way that is not known here: {what}. "
        f"Install jax {_KNOWN} for jobs of several processes"
    )
