# SPDX-License-Identifier: BSD-3-Clause
"""A server of a few files that breaks off, forgets ranges, or answers with a web page."""

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FileServer:
    """What the server has and does.

    Attributes:
        files: Contents by name.
        url: Address of the server.
        break_after: Bytes after which the next responses break off, in order.
        ranges: Headers Range of all requests.
        has_etag: Whether it sends an ETag, and honours If-Range.
        has_ranges: Whether it honours Range.
        html: Whether it answers with a web page.
        status: Status of every response; 0 for what HTTP asks for.
    """

    def __init__(self, files: dict[str, bytes]):
        self.files = files
        self.url = ""
        self.break_after: list[int] = []
        self.ranges: list[str | None] = []
        self.has_etag = True
        self.has_ranges = True
        self.html = False
        self.status = 0


class _Handler(BaseHTTPRequestHandler):
    server_state: FileServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        state = self.server_state
        asked = self.headers.get("Range")
        state.ranges.append(asked)
        content = state.files.get(self.path.partition("?")[0].lstrip("/"))
        if state.status or content is None:
            self.send_error(state.status or 404)
            return
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        if self.headers.get("If-Range", etag) != etag or not state.has_ranges:
            asked = None
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if state.has_etag:
            self.send_header("ETag", etag)
        self.send_header("Content-Type", "text/html" if state.html else "application/octet-stream")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + state.break_after.pop(0) if state.break_after else len(content)
        self.wfile.write(content[start:end])


@contextlib.contextmanager
def running(files: dict[str, bytes]) -> Iterator[FileServer]:
    """Runs a server on this machine."""
    state = FileServer(files)
    handler = type("Handler", (_Handler,), {"server_state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
