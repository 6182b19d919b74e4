# SPDX-License-Identifier: BSD-3-Clause
"""The server on a real port: how it ends, and clients that send nothing or too many requests."""

import contextlib
import dataclasses
import re
import signal
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="pip install -e '.[serve]'")
import httpx

from mlimages_jax.serving import connections, server
from mlimages_jax.serving.limits import Limits, ServingError
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


def test_a_thousand_connections_are_all_answered():
    with running() as served, contextlib.ExitStack() as stack:
        address = served.socket.getsockname()
        clients = [
            stack.enter_context(socket.create_connection(address, timeout=60)) for _ in range(1_000)
        ]
        for client in clients:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert {client.recv(15) for client in clients} == {b"HTTP/1.1 200 OK"}
        assert httpx.post(f"{served.address}/v1/tags", files=FILES, timeout=60).status_code == 200


def test_a_body_that_comes_byte_by_byte_is_given_up():
    limits = Limits(body_seconds=0.3)
    with (
        running(limits=limits) as served,
        socket.create_connection(served.socket.getsockname(), timeout=60) as client,
    ):
        client.sendall(
            b"POST /v1/tags HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
            b"Content-Length: 1000\r\n\r\n"
        )
        client.settimeout(0.05)
        answer = b""
        for _ in range(1_000):
            with contextlib.suppress(TimeoutError):
                answer = client.recv(1_000)
                break
            with contextlib.suppress(ConnectionError):  # the answer may just have come
                client.sendall(b"x")
        assert answer.startswith(b"HTTP/1.1 408 ") and b"0.3 seconds" in answer
        wait_until(lambda: not served.server.server_state.connections)
        assert served.service.bytes.used == served.service.images.used == 0


def test_an_upload_of_50_megabytes_is_refused_without_decoding_it(monkeypatch):
    with running() as served:
        monkeypatch.setattr(served.model, "crop", lambda _: pytest.fail("it was decoded"))
        files = {"files": ("large.png", png() + bytes(50_000_000))}
        answer = httpx.post(f"{served.address}/v1/tags", files=files, timeout=60)
        assert answer.status_code == 413
        assert "large.png: the file has 50.0 MB: at most 20 MB" in answer.text
        assert served.service.bytes.used == 0


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


@pytest.mark.slow
def test_a_model_and_an_export_of_version_0_1_are_served(tmp_path):
    import mlimages_jax
    from mlimages_jax.serving.nearest import open_nearest
    from tests.test_former_versions import ARCHIVE

    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    model = dataclasses.replace(mlimages_jax.load(tmp_path / "run"), max_batch=1)
    with running(model, nearest=open_nearest(str(tmp_path / "export"), model)) as served:
        answer = httpx.post(f"{served.address}/v1/tags?nearest=3", files=FILES, timeout=60)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["images"][0]["nearest"]) == 3
