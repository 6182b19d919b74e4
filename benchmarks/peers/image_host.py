# SPDX-License-Identifier: BSD-3-Clause
"""The process of the image server: HTTP/1.1 with persistent connections; see image_server.py.

Complete responses are written straight from the request callback, without a task or a copy, so that
serving costs a fraction of what any client spends.
"""

import argparse
import asyncio
import dataclasses
import email.utils
import http
import itertools
import json
import re
import socket
import struct
import sys
import threading
import time
import urllib.parse
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator

from peers.served_images import Images

HOST = "127.0.0.1"
HTML = b"<!DOCTYPE html><html><title>Photo</title><p>This photo is not available.</html>"
UNAVAILABLE = "/pw/images/en-us/photo_unavailable.png"
TRICKS = {
    "timeout", "hangup", "stall", "crawl", "reset", "truncated", "slow", "large", "endless",
}  # fmt: skip
TYPE = "Content-Type: image/jpeg"  # for every response, as careless hosts do
WAIT = "Retry-After: 1"
CHUNKED = f"HTTP/1.1 200 OK\r\n{TYPE}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
CHUNKS = 7
ZEROS = bytes(2**16)
LARGE = 2**30  # bytes of /large/, sent as repeated ZEROS
SLOW_PIECES, SLOW_PAUSE = 10, 0.05  # seconds
CRAWL_PAUSE = 0.2  # seconds between two bytes
HOST_HEADER = re.compile(rb"\r\nhost:[ \t]*([^\r]*)", re.IGNORECASE)
SEND_BUFFER = 2**20  # bytes: an image goes to the kernel in one piece


@dataclasses.dataclass
class Request:
    """A request in the log.

    Attributes:
        host: Its Host header.
        client: Address of the client.
        port: Port of the client.
        connection: Number of the connection; ports are used again.
        start: When it came, in seconds since 1970.
        end: When it was answered or its connection closed, which for tricks is an upper bound.
    """

    host: str
    client: str
    port: int
    connection: int
    start: float
    end: float | None = None


class Answers:
    """The complete response to each path, and how often each was requested."""

    def __init__(self, images: Images, *, latency: float = 0):
        self.images = images
        self.requests: Counter[str] = Counter()
        self.log: list[Request] = []
        self.connections = itertools.count()
        self._latency = latency

    def delay(self, path: str) -> float:
        """Returns the seconds before the response: half to one and a half times the latency.

        Paths of the kind `after` have a time of their own instead.
        """
        if path.startswith("/after/"):
            return int(path.split("/")[2]) / 1000
        return self._latency * (0.5 + zlib.crc32(path.encode()) / 2**32)

    def whole(self, kind: str, path: str) -> bytes | None:
        """Returns the full response with headers; None for the tricks of `Connection`."""
        images = self.images
        again = self.requests[path] > 1
        match kind:
            case "ok" | "after":
                return _answer(200, images.jpeg(path))
            case "flaky":
                return _answer(200, images.jpeg(path)) if again else _answer(500, HTML)
            case "busy":
                return _answer(200, images.jpeg(path)) if again else _answer(429, HTML, WAIT)
            case "429":
                return _answer(429, HTML, WAIT)
            case "http-date":
                when = email.utils.formatdate(time.time() + 1, usegmt=True)
                return _answer(503, HTML, f"Retry-After: {when}")
            case "403" | "404" | "410" | "500":
                return _answer(int(kind), HTML)
            case "redirect":
                return _answer(301, b"", f"Location: /ok/{path.rpartition('/')[2]}")
            case "unavailable":
                return _answer(302, b"", f"Location: {UNAVAILABLE}")
            case "loop":
                return _answer(302, b"", f"Location: {path}")
            case "to":
                target = urllib.parse.unquote(path.removeprefix("/to/"))
                return _answer(302, b"", f"Location: {target}")
            case "cut":
                jpeg = images.jpeg(path)
                return _answer(200, jpeg[: len(jpeg) // 2])
            case "html":
                return _answer(200, HTML)
            case "placeholder":
                return _answer(200, images.placeholder)
            case "empty":
                return _answer(200, b"")
            case "bomb":
                return _answer(200, images.bomb(path))
            case "cmyk":
                return _answer(200, images.cmyk(path))
            case "png":
                return _answer(200, images.png(path))
            case "chunked":
                pieces = _pieces(images.jpeg(path), CHUNKS)
                return b"".join([CHUNKED, *map(_chunk, pieces), _chunk(b"")])
        return None if kind in TRICKS else self._by_name(path)

    def _by_name(self, path: str) -> bytes:
        if path == "/-/requests":
            return _answer(200, json.dumps(self.requests).encode())
        if path == "/-/forget":
            self.requests.clear()
            self.log.clear()
            return _answer(200, b"null")
        if path == "/-/log":
            return _answer(200, json.dumps([vars(one) for one in self.log]).encode())
        if path == UNAVAILABLE:
            return _answer(200, self.images.unavailable)
        if path.endswith(".jpg"):
            return _answer(200, self.images.jpeg(path))
        return _answer(404, HTML)


class Connection(asyncio.Protocol):
    """Serves the requests of one client in order."""

    def __init__(self, answers: Answers):
        self._answers = answers
        self._received = b""
        self._occupied = False  # by a response that is unfinished, perhaps for ever
        self._writable = asyncio.Event()
        self._writable.set()
        self._stream: asyncio.Task[None] | None = None
        self._logged: Request | None = None
        self._waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._client, self._port = transport.get_extra_info("peername")[:2]
        self._number = next(self._answers.connections)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._end()
        for one in self._stream, self._waiting:
            if one is not None:
                one.cancel()

    def pause_writing(self) -> None:
        """Called by asyncio."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Called by asyncio."""
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._received += data
        while not self._occupied and (end := self._received.find(b"\r\n\r\n")) >= 0:
            head, self._received = self._received[:end], self._received[end + 4 :]
            self._request(head)

    def _request(self, head: bytes) -> None:
        method, _, rest = head.partition(b" ")
        target, _, rest = rest.partition(b" ")
        if method != b"GET" or not rest.startswith(b"HTTP/1."):
            self._transport.write(_answer(400, b"only GET is answered"))
            self._transport.close()
            return
        path = target.decode("latin-1").partition("?")[0]
        if not path.startswith("/"):  # proxies get absolute URLs: http://host/path
            path = urllib.parse.urlsplit(path).path
        kind = path[1:].partition("/")[0]
        once = rest.startswith(b"HTTP/1.0") or b"connection: close" in head.lower()
        delay = 0.0
        if kind != "-":
            self._answers.requests[path] += 1
            self._begin(head)
            delay = self._answers.delay(path)
        if delay:
            self._occupied = True
            loop = asyncio.get_running_loop()
            self._waiting = loop.call_later(delay, self._respond_late, kind, path, once)
        else:
            self._respond(kind, path, once=once)

    def _respond_late(self, kind: str, path: str, once: bool) -> None:
        self._occupied = False
        self._respond(kind, path, once=once)
        self.data_received(b"")  # what came meanwhile

    def _respond(self, kind: str, path: str, *, once: bool) -> None:
        whole = self._answers.whole(kind, path)
        if whole is None:
            self._trick(kind, self._answers.images.jpeg(path))
            return
        self._transport.write(whole)
        self._end()
        if once:
            self._transport.close()

    def _begin(self, head: bytes) -> None:
        self._end()
        found = HOST_HEADER.search(head)
        host = found[1].decode("latin-1") if found else ""
        self._logged = Request(host, self._client, self._port, self._number, time.time())
        self._answers.log.append(self._logged)

    def _end(self) -> None:
        if self._logged is not None:
            self._logged.end = time.time()
            self._logged = None

    def _trick(self, kind: str, jpeg: bytes) -> None:
        """Starts one of `TRICKS`."""
        self._occupied = True
        headers = _headers(200, len(jpeg))
        match kind:
            case "hangup":
                self._transport.close()
            case "stall":
                self._transport.write(headers + jpeg[: len(jpeg) // 2])
            case "truncated":
                self._transport.write(headers + jpeg[: len(jpeg) // 2])
                self._transport.close()
            case "reset":
                self._transport.write(headers + jpeg[: len(jpeg) // 2])
                linger = struct.pack("ii", 1, 0)  # on, 0 s: closing sends a TCP reset
                connection = self._transport.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self._transport.abort()
            case "slow":
                self._transport.write(headers)
                self._send(_pieces(jpeg, SLOW_PIECES), pause=SLOW_PAUSE)
            case "crawl":
                self._transport.write(headers)
                self._send(_pieces(jpeg, len(jpeg)), pause=CRAWL_PAUSE)
            case "large":
                first = jpeg[: len(ZEROS)].ljust(len(ZEROS), b"\0")
                zeros = itertools.repeat(ZEROS, LARGE // len(ZEROS) - 1)
                self._send(itertools.chain([_headers(200, LARGE), first], zeros))
            case "endless":
                zeros = itertools.repeat(_chunk(ZEROS))
                self._send(itertools.chain([CHUNKED, _chunk(jpeg)], zeros))

    def _send(self, pieces: Iterable[bytes], *, pause: float = 0) -> None:
        self._stream = asyncio.create_task(self._send_pieces(pieces, pause))

    async def _send_pieces(self, pieces: Iterable[bytes], pause: float) -> None:
        for piece in pieces:
            self._transport.write(piece)
            await asyncio.sleep(pause)
            await self._writable.wait()
        self._occupied = False
        self.data_received(b"")


def _headers(status: int, length: int, *more: str) -> bytes:
    reason = http.HTTPStatus(status).phrase
    lines = [f"HTTP/1.1 {status} {reason}", TYPE, f"Content-Length: {length}", *more]
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1")


def _answer(status: int, body: bytes, *more: str) -> bytes:
    return b"".join([_headers(status, len(body), *more), body])


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def _pieces(data: bytes, count: int) -> Iterator[bytes]:
    for i in range(count):
        yield data[len(data) * i // count : len(data) * (i + 1) // count]


async def _serve(answers: Answers, address: tuple[str, int]) -> None:
    """Prints the port, then serves until standard input is closed."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def watch() -> None:  # a thread, since not every kind of standard input can be polled
        sys.stdin.buffer.read()
        loop.call_soon_threadsafe(ended.set)

    listener = socket.create_server(address, backlog=1024)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # connections inherit it
    await loop.create_server(lambda: Connection(answers), sock=listener)
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=watch, daemon=True).start()
    await ended.wait()


def main() -> None:
    """Makes the images and serves them."""
    parser = argparse.ArgumentParser(description="Imitates good and bad image hosts.")
    parser.add_argument("--host", default=HOST, help="address to listen at")
    parser.add_argument("--port", type=int, default=0, help="0 (default): any free port")
    parser.add_argument("--bases", type=int, default=8, help="images with distinct pixels")
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--latency", type=float, default=0, help="mean seconds before a response")
    options = parser.parse_args()
    images = Images(bases=options.bases, width=options.width, height=options.height)
    answers = Answers(images, latency=options.latency)
    asyncio.run(_serve(answers, (options.host, options.port)))


if __name__ == "__main__":
    main()
