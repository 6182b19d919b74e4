# SPDX-License-Identifier: BSD-3-Clause
"""The private part of jax that this project uses, as the installed version of jax has it."""

import socket
import subprocess
import sys
import types

import jax
import pytest
from jax._src import distributed

from benchmarks.peers.job import inherited_environment
from mlimages_jax.distributed import collectives, coordination, processes
from tests.support.two_processes import ROOT

# Every call in the form that the package makes it, and every error that it tells by its text.
CALLS = """
import sys
import jax
from mlimages_jax.distributed import collectives, coordination
coordination.check()
assert coordination.membership() == coordination.Membership(None, 0, 1)
try:
    coordination.client()
except RuntimeError as error:
    assert "not connected" in str(error)
else:
    raise AssertionError("a client before the process has joined")
jax.distributed.initialize(
    sys.argv[1], 1, 0, initialization_timeout=60, heartbeat_timeout_seconds=30,
    shutdown_timeout_seconds=30, cluster_detection_method="deactivate",
)
assert jax.distributed.is_initialized() and not collectives.is_one_of_many()
assert coordination.membership() == coordination.Membership(sys.argv[1], 0, 1)
client = coordination.client()
client.key_value_set("a/1", "one")
client.key_value_set("a/1", "uno", allow_overwrite=True)
assert client.blocking_key_value_get("a/1", 1_000) == "uno"
client.key_value_set("a/2", "two")
assert sorted(client.key_value_dir_get("a/")) == [("a/1", "uno"), ("a/2", "two")]
client.wait_at_barrier("together", 10_000)
def kind(call, *arguments):
    try:
        call(*arguments)
    except jax.errors.JaxRuntimeError as error:
        return str(error).partition(":")[0]
print(kind(client.key_value_set, "a/1", "once more"))
print(kind(client.blocking_key_value_get, "b", 50))
"""


def test_the_service_answers_as_the_package_expects():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    done = subprocess.run(
        [sys.executable, "-c", CALLS, address], cwd=ROOT, env=inherited_environment(),
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, f"jax {jax.__version__}: {done.stderr[-3000:]}"
    assert done.stdout.split() == ["ALREADY_EXISTS", "DEADLINE_EXCEEDED"]


def test_a_state_that_has_changed_is_named_with_the_version_of_jax(monkeypatch):
    state = types.SimpleNamespace(client=None, process_id=0, num_processes=1)
    monkeypatch.setattr(distributed, "global_state", state)
    message = f"jax {jax.__version__} .*global_state has no coordinator_address.*Install jax 0.10"
    with pytest.raises(coordination.UnknownJaxError, match=message):
        coordination.membership()


def test_a_client_that_has_changed_is_named_before_a_process_waits_for_others(monkeypatch):
    from jax._src.lib import _jax

    monkeypatch.setattr(_jax, "DistributedRuntimeClient", type("Changed", (), {"get": None}))
    message = "its client has no blocking_key_value_get, key_value_dir_get"
    with (
        pytest.raises(coordination.UnknownJaxError, match=message),
        processes.initialize("127.0.0.1:1", 2, 1),
    ):
        pass


def test_one_process_does_not_look_at_it(monkeypatch):
    monkeypatch.delattr(distributed, "global_state")
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: False)
    assert not collectives.is_one_of_many()
    assert collectives.process_number() == 0
