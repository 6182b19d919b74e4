# SPDX-License-Identifier: BSD-3-Clause
"""A server that answers with the bytes it is given, good HTTP or not."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping


class RawServer:
    """Answers `/name` with the bytes of that name, and closes the connection.

    Attributes:
        answers: bytes by name; may be changed at any time. A list is sent again and again.
        requests: how often each name was asked for.
        url: without a slash at the end.
    """

    def __init__(self, answers: Mapping[str, bytes | list[bytes]]):
        self.answers = dict(answers)
        self.requests: dict[str, int] = {}
        self.url = ""

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, EOFError, LookupError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
            name = head.split()[1].decode().lstrip("/").partition("?")[0]
            self.requests[name] = self.requests.get(name, 0) + 1
            answer = self.answers[name]
            if isinstance(answer, bytes):
                writer.write(answer)
            while isinstance(answer, list):  # until nobody listens any more
                writer.write(answer[0])
                await writer.drain()
                await asyncio.sleep(float(answer[1]) if len(answer) > 1 else 0)
            await writer.drain()
        writer.close()

    async def _serve(self, ready: threading.Event) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await self._stop.wait()
        server.close()

    @contextlib.contextmanager
    def running(self) -> Iterator["RawServer"]:
        """Serves from a thread of its own."""
        ready = threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        thread.start()
        ready.wait(10)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._stop.set)
            thread.join(10)


def answer(body: bytes, *headers: str | bytes, status: str | bytes = "200 OK") -> bytes:
    """A plain answer."""
    lines = [b"HTTP/1.1 " + _bytes(status), *map(_bytes, headers)]
    lines.append(f"Content-Length: {len(body)}".encode())
    return b"\r\n".join([*lines, b"", body])


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
