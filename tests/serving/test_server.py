# SPDX-License-Identifier: BSD-3-Clause
"""The server on a real port: how it ends, and clients that send nothing or too many requests."""

import contextlib
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="pip install -e '.[serve]'")
import httpx

from mlimages_jax.serving import connections, server
from mlimages_jax.serving.limits import ServingError
from tests.support.running_server import png, running, wait_until

ROOT = Path(__file__).resolve().parents[2]


FILES = {"files": ("a.png", png())}


def test_sigterm_answers_what_has_arrived_and_takes_no_more():
    with running() as served:
        answer = served.ask_in_thread(FILES)
        served.server.handle_exit(signal.SIGTERM, None)
        wait_until(lambda: served.server.should_exit)
        wait_until(lambda: not served.server.servers[0].sockets)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{served.address}/healthz")
        served.model.gate.set()
        assert answer().status_code == 200
        served.thread.join(60)
        assert not served.thread.is_alive() and served.service.images.used == 0


def test_it_can_say_that_it_drains_before_it_stops_listening():
    with running(drain_delay=3600) as served:
        served.server.handle_exit(signal.SIGTERM, None)
        health = httpx.get(f"{served.address}/healthz", timeout=60)
        assert (health.status_code, health.json()) == (503, {"status": "draining"})
        sent = httpx.post(f"{served.address}/v1/tags", files=FILES, timeout=60)
        assert sent.status_code == 200
        served.server.handle_exit(signal.SIGTERM, None)  # once more: without the delay
        served.thread.join(60)
        assert not served.thread.is_alive()


def test_a_connection_without_a_whole_head_is_closed_and_a_working_one_is_not(monkeypatch):
    monkeypatch.setattr(connections, "PATIENCE", 0.2)
    with running() as served:
        answer = served.ask_in_thread(FILES)
        for sent in (b"", b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Slow: "):
            with socket.create_connection(served.socket.getsockname(), timeout=60) as idle:
                idle.sendall(sent)
                with contextlib.suppress(ConnectionResetError):
                    assert idle.recv(100) == b""
        served.model.gate.set()  # the other one has waited for longer
        assert answer().status_code == 200


def test_more_connections_than_allowed_get_an_answer_too():
    with running(max_connections=4) as served:
        address = served.socket.getsockname()
        with contextlib.ExitStack() as stack:
            for _ in range(6):
                stack.enter_context(socket.create_connection(address, timeout=60))
            wait_until(lambda: len(served.server.server_state.connections) == 6)
            assert httpx.get(f"{served.address}/healthz", timeout=60).status_code == 503
        wait_until(lambda: not served.server.server_state.connections)
        assert httpx.get(f"{served.address}/healthz", timeout=60).status_code == 200


def test_a_port_that_is_taken_is_told():
    with server.bound_socket("127.0.0.1", 0) as first:
        first.listen()
        port = first.getsockname()[1]
        assert server.address_of(first) == f"http://127.0.0.1:{port}"
        with pytest.raises(ServingError, match=rf"--port={port}: .*give another one"):
            server.bound_socket("127.0.0.1", port)
    with pytest.raises(ServingError, match=r"--host=no\.such\.host\.invalid"):
        server.bound_socket("no.such.host.invalid", 0)


@pytest.mark.slow
def test_the_command_serves_a_workdir(tmp_path):
    import mlimages_jax
    from benchmarks.peers.job import inherited_environment
    from tests.support import small_model

    workdir = small_model.save(tmp_path / "run", small_model.imported("weighted"))
    words = ["serve", str(workdir), "--port=0", "--max-batch=2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlimages_jax", *words],
        cwd=ROOT, env=inherited_environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        told = ""
        while "ready: " not in told:
            line = process.stdout.readline()
            assert line, told
            told += line
        address = re.search(r"http://[\d.:]+", told)[0]
        answer = httpx.post(f"{address}/v1/tags?k=3", files=FILES, timeout=60).json()
        (tags,) = mlimages_jax.load(workdir).tag([png()], top_k=3)
        (image,) = answer["images"]
        assert [tag["id"] for tag in image["tags"]] == [tag.id for tag in tags]
        for sent, tag in zip(image["tags"], tags, strict=True):
            assert sent["score"] == pytest.approx(tag.score, abs=1e-5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
