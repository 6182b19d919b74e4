# SPDX-License-Identifier: BSD-3-Clause
"""What users see when Ray fails, with a module in its place that fails at once."""

import signal
import socket
import subprocess
import sys
import time
import types

import pytest

from mlimages_jax import command_line
from mlimages_jax.engines import head_watch, ray_cluster
from mlimages_jax.engines.options import open_engine
from mlimages_jax.engines.ray_cluster import ClusterError

TERMINATED = """
import os, signal, sys, types
def init(**_):
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
    if sys.argv[1] == "start":
        os.kill(os.getpid(), signal.SIGTERM)
sys.modules["ray"] = types.SimpleNamespace(init=init, shutdown=lambda: print("shutdown"))
from mlimages_jax.engines.ray_cluster import open_ray
with open_ray(None):
    os.kill(os.getpid(), signal.SIGTERM)
"""


class RayError(Exception):
    pass


def replace_ray(monkeypatch, init, **more):
    """Puts a module in the place of Ray."""
    errors = ("NodeDiedError", "ObjectLostError", "OutOfMemoryError", "WorkerCrashedError")
    exceptions = types.SimpleNamespace(
        RayError=RayError, **{name: type(name, (RayError,), {}) for name in errors}
    )
    fake = types.SimpleNamespace(init=init, shutdown=lambda: None, exceptions=exceptions, **more)
    monkeypatch.setitem(sys.modules, "ray", fake)


def failing(error):
    def fail(*_, **__):
        raise error

    return fail


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[ray\]'"), open_engine("ray"):
        pass


def test_a_slow_start_of_ray_is_said_and_one_that_fails_says_what_to_do(monkeypatch, capsys):
    def init(**_):
        while "waiting for Ray" not in capsys.readouterr().err:
            time.sleep(0.01)
        raise Exception("The current node timed out during startup")

    replace_ray(monkeypatch, init)
    monkeypatch.setattr(ray_cluster, "_PATIENCE", 0.0)
    with pytest.raises(ClusterError, match="ray start --head"), open_engine("ray"):
        pass


@pytest.mark.parametrize(
    ("address", "error", "advice"),
    [
        ("abc", ValueError("Invalid address format: abc"), "RAY_ADDRESS=abc: see that"),
        ("head:1", ConnectionError("Failed to connect to head:1"), "RAY_ADDRESS=head:1"),
        ("head:1", RuntimeError("Version mismatch:\n  Ray: 2.50\n"), "Ray: 2.50. RAY_ADDRESS="),
        ("", ConnectionError("Failed to connect to head:1"), "`ray stop` makes"),
        ("local", PermissionError(13, "Permission denied", "/tmp/ray"), "in RAY_TMPDIR"),
        ("local", RuntimeError("Failed to start GCS."), "Failed to start GCS. If this"),
    ],
)  # fmt: skip
def test_ray_that_does_not_start_is_an_error_without_a_traceback(
    address, error, advice, monkeypatch
):
    replace_ray(monkeypatch, failing(error))
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(SystemExit) as caught:
        command_line.with_errors(lambda: open_engine("ray").__enter__())
    message = caught.value.code
    assert message.startswith("error: ") and advice in message and message.count("\n") < 3


def test_a_failure_of_the_cluster_says_how_to_resume(monkeypatch):
    lost = RayError("The task's local raylet died. Check raylet.out for more information.")
    replace_ray(monkeypatch, lambda **_: None, put=failing(lost))
    with open_engine("ray") as engine, pytest.raises(ClusterError) as caught:
        list(engine.map_unordered(abs, [1]))
    assert "local raylet died" in str(caught.value)
    assert str(caught.value).endswith("run the same command to resume")


@pytest.mark.parametrize("when", ["start", "work"])
def test_sigterm_has_the_exit_code_that_it_has_without_ray(when):
    process = subprocess.run(
        [sys.executable, "-c", TERMINATED, when], capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 128 + signal.SIGTERM and not process.stderr
    assert process.stdout == ("shutdown\n" if when == "work" else "")


def test_sigterm_does_afterwards_what_it_did_before(monkeypatch):
    def init(**_):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    replace_ray(monkeypatch, init)
    earlier = signal.getsignal(signal.SIGTERM)
    with open_engine("ray"):
        pass
    assert signal.getsignal(signal.SIGTERM) == earlier


def test_the_end_of_a_cluster_is_said_once(monkeypatch, capsys):
    monkeypatch.setattr(head_watch, "_INTERVAL", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        context = types.SimpleNamespace(address_info={"gcs_address": address})
        replace_ray(monkeypatch, lambda **_: context)
        with open_engine("ray"):
            head.accept()[0].close()  # it was asked
            assert not capsys.readouterr().err
            head.close()
            while not (text := capsys.readouterr().err):
                time.sleep(0.01)
            time.sleep(0.1)
    assert address in text and "run the same command to resume" in text
    assert not capsys.readouterr().err


def test_an_error_because_a_cluster_ended_comes_with_that_line(capsys):
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
    with pytest.raises(ClusterError), head_watch.watched(address):
        raise ClusterError
    assert address in capsys.readouterr().err


def node(*, alive=True, **resources):
    return {"Alive": alive, "Resources": {"memory": 1e9, **resources}}


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([node(CPU=4.0), node(CPU=8.0)], {"num_cpus": 4.0}),
        ([node(CPU=4.0), node(CPU=8.0, GPU=8.0), node(CPU=9.0, GPU=4.0)],
         {"num_cpus": 8.0, "num_gpus": 4.0}),
        ([node(CPU=4.0), node(CPU=200.0, TPU=4.0)], {"num_cpus": 200.0, "resources": {"TPU": 4.0}}),
        ([node(), node(CPU=2.0, alive=False)], {"num_cpus": 1}),
    ],
)  # fmt: skip
def test_a_whole_machine_of_ray_is_the_smallest_that_has_accelerators(nodes, expected):
    assert ray_cluster._whole_machine(nodes) == expected
