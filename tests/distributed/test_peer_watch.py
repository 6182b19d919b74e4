# SPDX-License-Identifier: BSD-3-Clause
"""With a stand-in for the service of process 0; test_processes.py kills real processes."""

import threading

import jax
import pytest

from mlimages_jax.distributed import coordination, peer_watch
from mlimages_jax.distributed.peer_watch import LOST_EXIT_CODE, PeerWatch


class Service:
    """The key-value store of jax's coordination service."""

    def __init__(self):
        self.values = {}
        self.problem = "DEADLINE_EXCEEDED: nobody has set it"

    def key_value_set(self, key, value, allow_overwrite=False):
        if key in self.values and not allow_overwrite:
            raise jax.errors.JaxRuntimeError("ALREADY_EXISTS")
        self.values[key] = value

    def blocking_key_value_get(self, key, _):
        if key not in self.values:
            raise jax.errors.JaxRuntimeError(self.problem)
        return self.values[key]

    def key_value_dir_get(self, prefix):
        return [(key, value) for key, value in self.values.items() if key.startswith(prefix)]


@pytest.fixture
def service(monkeypatch):
    service = Service()
    monkeypatch.setattr(coordination, "client", lambda: service)
    place = coordination.Membership("127.0.0.1:1", number=1, count=2)
    monkeypatch.setattr(coordination, "membership", lambda: place)
    monkeypatch.setattr(peer_watch, "_LAST_WORDS_SECONDS", 0.01)
    return service


@pytest.fixture
def ended(monkeypatch):
    """The exit codes, and an event for the first of them."""
    codes, first = [], threading.Event()

    def leave(code):
        codes.append(code)
        first.set()

    monkeypatch.setattr(peer_watch.os, "_exit", leave)
    return codes, first


def test_the_others_learn_why_a_process_ends(service, ended):
    PeerWatch().leave(70, "failed with ValueError: no\nsecond line")
    assert service.values[peer_watch._END] == "70 process 1 failed with ValueError: no"
    assert ended[0] == [70]


def test_the_first_reason_stays(service, ended):
    service.values[peer_watch._END] = "70 process 0 failed"
    watch = PeerWatch()
    watch.leave(76, "lost another")
    assert service.values[peer_watch._END] == "70 process 0 failed"


@pytest.mark.parametrize(
    ("end", "code", "line"),
    [
        ("70 process 0 failed with OSError: x", LOST_EXIT_CODE, "error: process 0 failed"),
        ("75 process 0 was asked to stop", 75, "process 0 was asked to stop. Only the steps"),
    ],
)
def test_a_process_ends_with_the_others(service, ended, capfd, end, code, line):
    service.values[peer_watch._END] = end
    watch = PeerWatch()
    assert ended[1].wait(60)
    watch.stop()
    assert ended[0][0] == code
    assert capfd.readouterr().err.startswith(line)


def test_a_process_ends_when_the_service_is_gone(service, ended, capfd):
    service.problem = "UNAVAILABLE: connection refused"
    watch = PeerWatch()
    assert ended[1].wait(60)
    watch.stop()
    assert ended[0][0] == LOST_EXIT_CODE
    assert "process 0, which coordinates the others, is gone" in capfd.readouterr().err


def test_a_silent_process_is_named_once(service, caplog):
    watch = PeerWatch()
    watch.stop()
    service.values[f"{peer_watch._BEAT}0"] = "3"  # never again
    for rounds in range(3, 60, 3):
        watch._beat(rounds)
    warned = [record.getMessage() for record in caplog.records]
    assert len(warned) == 1 and warned[0].startswith("process 0 has been silent for 9 s")
    assert service.values[f"{peer_watch._BEAT}1"] == "57"
