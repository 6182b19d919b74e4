# SPDX-License-Identifier: BSD-3-Clause
"""The server of the download tests and benchmarks plays each host as it says."""

import email.utils
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse

import numpy as np
import psutil
import pytest

from benchmarks.peers.image_server import BENCHMARKS, ImageServer
from mlimages_jax.data.images.decode import (
    BadImage,
    decode,
    read_header,
    verify,
)

WIDTH, HEIGHT = 96, 64


@pytest.fixture(scope="module")
def server():
    with ImageServer(bases=2, width=WIDTH, height=HEIGHT) as running:
        yield running


@pytest.fixture
def client(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    yield connection
    connection.close()


def get(client, path, **headers):
    """The answer with its body, which is read whole."""
    client.request("GET", path, headers=headers)
    response = client.getresponse()
    return response, response.read()


def raw(server, request):
    """A socket that has sent the request."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=0.3)
    connection.sendall(request)
    return connection


def asked(server, path):
    return raw(server, f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())


def received(connection):
    """What came until the other side closed, and how it ended: closed, reset or silent."""
    parts = []
    try:
        while part := connection.recv(2**16):
            parts.append(part)
    except ConnectionResetError:
        return b"".join(parts), "reset"
    except TimeoutError:
        return b"".join(parts), "silent"
    finally:
        connection.close()
    return b"".join(parts), "closed"


def promised_and_sent(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    (line,) = (line for line in head.split(b"\r\n") if line.startswith(b"Content-Length: "))
    return int(line.partition(b": ")[2]), len(body)


def test_good_images_differ_in_bytes_and_come_again_the_same(client):
    paths = [f"/ok/{i}.jpg" for i in range(20)] + ["/2034/1557324960_1ae893fed8_o.jpg"]
    bodies = [get(client, path)[1] for path in paths]
    assert len(set(bodies)) == len(paths)
    assert len({decode(body).tobytes() for body in bodies}) == 2  # the bases
    for body in bodies:
        assert verify(body)[:4] == ("jpeg", WIDTH, HEIGHT, 3)
    assert [get(client, path)[1] for path in paths] == bodies


def test_an_image_of_the_default_size_takes_100_kb():
    from benchmarks.peers.served_images import Images

    body = Images(bases=1, width=500, height=375).jpeg("/ok/1.jpg")
    assert 95_000 < len(body) < 105_000


def test_a_connection_is_kept_for_many_requests(client):
    get(client, "/ok/1.jpg")
    first = client.sock
    for path in ("/404/x", "/empty/x", "/chunked/1.jpg", "/slow/1.jpg", "/unavailable/x"):
        get(client, path)
        assert client.sock is first


def test_host_and_query_change_nothing_and_a_proxy_may_ask(client):
    _, body = get(client, "/ok/1.jpg")
    assert get(client, "/ok/1.jpg?size=large", Host="farm1.example.test")[1] == body
    assert get(client, "http://farm1.example.test/ok/1.jpg")[1] == body


def test_an_answer_after_a_pause_is_complete_and_keeps_its_connection(client):
    start = time.monotonic()
    bodies = [get(client, "/after/20/7.jpg")[1] for _ in range(3)]
    assert len(set(bodies)) == 1 and verify(bodies[0])
    assert time.monotonic() - start >= 0.06


@pytest.mark.parametrize("status", [403, 404, 410, 500])
def test_status_codes(client, status):
    response, body = get(client, f"/{status}/7.jpg")
    assert response.status == status
    assert b"not available" in body


def test_unknown_paths_are_not_found(client):
    assert get(client, "/nothing/here.txt")[0].status == 404


def test_too_many_requests_always_or_once(client):
    for path, statuses in (("/429/7.jpg", [429, 429]), ("/busy/7.jpg", [429, 200])):
        for status in statuses:
            response, body = get(client, path)
            assert response.status == status
            if status == 429:
                assert response.headers["Retry-After"] == "1"
            else:
                verify(body)


def test_flaky_fails_once_for_each_path(client):
    assert [get(client, "/flaky/7.jpg")[0].status for _ in range(3)] == [500, 200, 200]
    assert get(client, "/flaky/8.jpg")[0].status == 500


def test_retry_after_as_a_date(client):
    response, _ = get(client, "/http-date/7.jpg")
    assert response.status == 503
    when = email.utils.parsedate_to_datetime(response.headers["Retry-After"]).timestamp()
    assert -1 < when - time.time() <= 1


@pytest.mark.parametrize(
    ("path", "status", "target"),
    [
        ("/redirect/7.jpg", 301, "/ok/7.jpg"),
        ("/loop/7.jpg", 302, "/loop/7.jpg"),
        ("/unavailable/7.jpg", 302, "/pw/images/en-us/photo_unavailable.png"),
        ("/to/" + urllib.parse.quote("file:///etc/passwd", safe=""), 302, "file:///etc/passwd"),
        ("/to/" + urllib.parse.quote("http://10.0.0.1/a?b=c", safe=""), 302, "http://10.0.0.1/a?b=c"),
    ],
)  # fmt: skip
def test_redirects(client, path, status, target):
    response, body = get(client, path)
    assert (response.status, response.headers["Location"], body) == (status, target, b"")


def test_the_image_that_stands_for_unavailable_ones(client):
    first, second = (get(client, "/pw/images/en-us/photo_unavailable.png")[1] for _ in range(2))
    assert first == second
    assert verify(first).format == "png"


def test_one_placeholder_for_all(client):
    first, second = (get(client, f"/placeholder/{i}.jpg")[1] for i in range(2))
    assert first == second
    verify(first)


def test_images_of_other_kinds(client):
    for path, kind, components in (("/png/{}.png", "png", 3), ("/cmyk/{}.jpg", "jpeg", 4)):
        bodies = [get(client, path.format(i))[1] for i in range(3)]
        assert len(set(bodies)) == 3
        for body in bodies:
            header = verify(body)
            assert (header.format, header.components) == (kind, components)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("cut", "truncated"), ("html", "not_an_image"), ("empty", "empty"), ("bomb", "too_large")],
)
def test_complete_answers_that_are_no_images(client, kind, reason):
    response, body = get(client, f"/{kind}/7.jpg")
    assert (response.status, response.headers["Content-Type"]) == (200, "image/jpeg")
    assert response.headers["Content-Length"] == str(len(body))
    with pytest.raises(BadImage) as caught:
        verify(body)
    assert caught.value.reason == reason


def test_the_bomb_is_small_and_claims_much(client):
    body = get(client, "/bomb/7.jpg")[1]
    assert len(body) < 5_000
    assert read_header(body)[1:3] == (65_000, 65_000)


def test_chunks_and_drips_are_the_whole_image(client):
    for path in ("/chunked/7.jpg", "/slow/7.jpg"):
        start = time.monotonic()
        response, body = get(client, path)
        assert (response.headers["Transfer-Encoding"] == "chunked") == (path == "/chunked/7.jpg")
        assert verify(body)[1:3] == (WIDTH, HEIGHT)
    assert time.monotonic() - start > 0.4


def test_no_answer(server):
    assert received(asked(server, "/timeout/7.jpg")) == (b"", "silent")
    assert received(asked(server, "/hangup/7.jpg")) == (b"", "closed")


@pytest.mark.parametrize(
    ("kind", "end"), [("stall", "silent"), ("truncated", "closed"), ("reset", "reset")]
)
def test_answers_that_break_off_in_the_middle(server, kind, end):
    answer, ended = received(asked(server, f"/{kind}/7.jpg"))
    promised, sent = promised_and_sent(answer)
    assert ended == end
    assert sent == promised // 2


def test_crawling_goes_on_and_on(server):
    connection = asked(server, "/crawl/7.jpg")
    connection.settimeout(1)
    answer = b""
    while answer.partition(b"\r\n\r\n")[2] != b"\xff\xd8\xff":
        answer += connection.recv(2**16)
    connection.close()


@pytest.mark.parametrize(
    ("kind", "header"),
    [("large", b"Content-Length: 1073741824"), ("endless", b"Transfer-Encoding: chunked")],
)
def test_more_bytes_than_anybody_wants(server, kind, header):
    with asked(server, f"/{kind}/7.jpg") as connection:
        answer = bytearray()
        while len(answer) < 2**23:
            answer += connection.recv(2**20)
        time.sleep(0.3)  # it waits for a reader who is slow: nothing piles up
        assert psutil.Process(server.pid).memory_info().rss < 200e6
    head, _, body = answer.partition(b"\r\n\r\n")
    assert header in head
    assert b"\xff\xd8\xff" in body[:20]


def test_http_1_0_and_connection_close_are_obeyed(server):
    for request in (
        b"GET /ok/1.jpg HTTP/1.0\r\n\r\n",
        b"GET /ok/1.jpg HTTP/1.1\r\nConnection: close\r\n\r\n",
    ):
        answer, ended = received(raw(server, request))
        assert ended == "closed"
        promised, sent = promised_and_sent(answer)
        assert sent == promised


def test_a_request_may_come_in_pieces_and_two_at_once(server):
    connection = raw(server, b"GET /404/1 HT")
    time.sleep(0.02)
    connection.sendall(b"TP/1.1\r\n\r\nGET /410/1 HTTP/1.1\r\nConnection: close\r\n\r\n")
    answer, ended = received(connection)
    assert ended == "closed"
    assert answer.index(b"404 Not Found") < answer.index(b"410 Gone")


def test_other_methods_are_refused(server):
    answer, ended = received(raw(server, b"POST /ok/1.jpg HTTP/1.1\r\n\r\n"))
    assert (answer.split(b"\r\n")[0], ended) == (b"HTTP/1.1 400 Bad Request", "closed")


def test_requests_are_counted_by_path():
    with ImageServer(bases=1, width=16, height=16) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        for path in ("/ok/1.jpg", "/ok/1.jpg?again", "/404/x"):
            get(client, path)
        client.close()
        received(asked(server, "/timeout/x"))
        assert server.requests() == {"/ok/1.jpg": 2, "/404/x": 1, "/timeout/x": 1}
        assert server.requests() == {"/ok/1.jpg": 2, "/404/x": 1, "/timeout/x": 1}


def test_many_clients_at_once_get_their_own_image(server):
    connections = [asked(server, f"/ok/many{i}.jpg") for i in range(100)]
    for i, connection in enumerate(connections):
        connection.settimeout(5)
        answer = b""
        while not answer.endswith(b"\xff\xd9"):
            answer += connection.recv(2**16)
        assert f"/ok/many{i}.jpg\xff".encode("latin-1") in answer
        connection.close()


def test_only_this_machine_is_served(server):
    listening = [
        connection.laddr
        for connection in psutil.Process(server.pid).net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == [("127.0.0.1", server.port)]


def test_it_ends_with_the_block():
    with ImageServer(bases=1, width=16, height=16) as server:
        process = psutil.Process(server.pid)
    assert not process.is_running()


def test_it_ends_when_its_parent_is_killed():
    code = (
        "import time\nfrom peers.image_server import ImageServer\n"
        "with ImageServer(bases=1, width=16, height=16) as server:\n"
        "    print(server.pid, flush=True)\n    time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], cwd=BENCHMARKS, stdout=subprocess.PIPE, text=True
    )
    server = psutil.Process(int(parent.stdout.readline()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    server.wait(timeout=5)


def test_the_pixels_look_like_a_photograph_to_an_encoder(client):
    pixels = decode(get(client, "/ok/1.jpg")[1])
    assert pixels.std() > 20
    assert len(np.unique(pixels)) > 100
