# SPDX-License-Identifier: BSD-3-Clause
"""Hosts that never answer, beside others that do and without."""

import socket

import pytest

from mlimages_jax.prepare.download import hosts
from mlimages_jax.prepare.download.silence import NoAnswerError, Silence
from mlimages_jax.prepare.manifest import Manifest
from tests.prepare.test_download import QUICK, fails, rows, run
from tests.prepare.test_download_shards import effective

NOBODY = "http://127.0.0.1:9"  # refuses connections
GONE = TimeoutError("no answer")


def test_a_host_is_silent_only_while_others_answer():
    silence = Silence(host_limit=3, limit=0)
    for _ in range(5):
        silence.unanswered("a", GONE)
    assert silence.skips("a") is None  # perhaps this machine is offline
    silence.answered("b")
    assert "a gave no answer to 5 attempts" in silence.skips("a")
    assert silence.skips("b") is None and silence.skips("c") is None
    silence.answered("a")
    assert silence.skips("a") is None


def test_a_few_images_of_a_silent_host_are_tried():
    silence = Silence(host_limit=1, limit=0)
    silence.unanswered("a", GONE)
    silence.answered("b")
    assert [number for number in range(1, 301) if not silence.skips("a")] == [100, 200, 300]


def test_the_network_is_down_when_nobody_answers():
    silence = Silence(host_limit=2, limit=4)
    for host in "abc":
        silence.unanswered(host, GONE)
    silence.answered("d")
    for host in "abc":
        silence.unanswered(host, GONE)
    with pytest.raises(NoAnswerError, match="4 attempts in a row got no answer, the last one from"):
        silence.unanswered("a", GONE)
    never = Silence(host_limit=0, limit=0)
    for _ in range(10_000):
        never.unanswered("a", GONE)
    never.answered("b")
    assert never.skips("a") is None


def test_a_silent_host_does_not_end_a_download(image_server, tmp_path):
    urls = tmp_path / "urls.txt"
    lines = [f"http://gone.test/{i}.jpg\n" for i in range(300)]
    lines[::10] = [f"http://photos.test/ok/silence{i}.jpg\n" for i in range(30)]
    urls.write_text("".join(lines))
    with socket.create_server(("127.0.0.1", 0), backlog=128) as mute:
        gone = f"http://127.0.0.1:{mute.getsockname()[1]}"
        run(urls, "--output", tmp_path, *QUICK, "--retries=0", "--timeout=1", "--give-up-after=150",
            "--host-give-up-after=20", "--address-map", f"photos.test={image_server.url}",
            f"gone.test={gone}")  # fmt: skip
    assert len(rows(tmp_path)) == 300
    with Manifest(tmp_path / "manifest.sqlite", readonly=True) as manifest:
        errors = {error: count for (error,), count in manifest.counts("error").items()}
    assert errors[None] == 30 and errors["timeout"] + errors["silent_host"] == 270
    assert 20 <= errors["timeout"] < 60  # with those in flight, and a few that are tried later


def test_a_part_without_answers_does_not_keep_the_others(image_server, tmp_path):
    urls = tmp_path / "urls.txt"
    gone = "".join(f"http://gone.test/{i}.jpg\n" for i in range(60))
    there = [f"http://photos{i}.test/ok/part{i}.jpg" for i in range(12)]
    alone = hosts.part_of("http://gone.test/", 16)
    there = [url for url in there if hosts.part_of(url, 16) != alone]
    urls.write_text(gone + "".join(f"{url}\n" for url in there))
    maps = ["--address-map", f"photos*.test={image_server.url}", f"gone.test={NOBODY}"]
    options = [urls, "--output", tmp_path / "set", "--shards=16", *QUICK, "--timeout=10",
               "--retries=0", *maps]  # fmt: skip
    fails("1 of 16 parts ended early, all others are done.", *options, "--give-up-after=30")
    found = effective(tmp_path / "set")
    assert sum(row.status == "ok" for row in found.values()) == len(there) > 5
    run(*options, "--give-up-after=0", "--host-give-up-after=0")
    assert len(effective(tmp_path / "set")) == 60 + len(there)
    urls.write_text("".join(f"http://gone{i}.test/{j}.jpg\n" for i in range(40) for j in range(40)))
    fails("30 attempts in a row got no answer", urls, "--output", tmp_path / "down", "--shards=16",
          *QUICK, "--retries=0", "--give-up-after=30",
          f"--address-map=gone*.test={NOBODY}")  # fmt: skip
