# SPDX-License-Identifier: BSD-3-Clause
"""An image server on this machine that imitates good and bad hosts, for tests and benchmarks.

The path alone determines the response (the Host header and the query are ignored), so that one
server can imitate any number of hosts and every run can be repeated. Every path has a file of its
own: the bytes differ in a comment inside the file, the pixels are those of a few base images.

    /ok/7.jpg           a JPEG, as for any path ending in .jpg that is not listed below
    /redirect/7.jpg     301 to /ok/7.jpg
    /after/250/7.jpg    the JPEG, after 250 milliseconds
    /chunked/7.jpg      the JPEG, chunked, without Content-Length
    /slow/7.jpg         the JPEG, over half a second
    /png/7.png          a PNG
    /cmyk/7.jpg         a JPEG of four components
    /flaky/7.jpg        500 the first time, then the JPEG
    /busy/7.jpg         429 with Retry-After: 1 the first time, then the JPEG

    /404/x /403/ /410/ /500/    this status
    /429/x              429 with Retry-After: 1
    /http-date/x        503 with a date in Retry-After, one second ahead
    /timeout/x          no response
    /hangup/x           the connection is closed without a response
    /stall/x            the headers and half of the JPEG, then nothing
    /crawl/x            the JPEG at a byte per 0.2 s, which takes hours
    /reset/x            the connection is reset in the middle of the JPEG
    /truncated/x        less than the promised length, then a clean close
    /cut/x              a complete response with a truncated JPEG
    /html/x             an HTML page with the type image/jpeg
    /placeholder/x      the same JPEG for every path
    /unavailable/x      302 to /pw/images/en-us/photo_unavailable.png, as Flickr does
    /loop/x             302 to itself
    /to/TARGET          302 to the target, which is URL-encoded: /to/file%3A%2F%2F%2Fetc%2Fpasswd
    /large/x            1 GB
    /endless/x          chunks without end
    /empty/x            200 with no bytes
    /bomb/x             a few kB of JPEG that claim 65,000 x 65,000 pixels
    /-/requests         the number of requests for each path, as JSON
    /-/log              all requests: host, port of the client, start and end
    /-/forget           empties both, so that every path is requested for the first time again

To run it by hand, until its standard input is closed:

    cd benchmarks && python -m peers.image_host --port 8000
"""

import http.client
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"


class ImageServer:
    """A context manager for a server in its own process, which never outlives this one.

    Args:
        bases: Number of images with distinct pixels.
        width: Width in pixels; images of 500 x 375 have 100 kB each.
        height: Height in pixels.
        latency: Mean seconds before a response.

    Attributes:
        port: Port on 127.0.0.1, set on entering.
        url: Base URL without a trailing slash.
        pid: Process id of the server.
    """

    def __init__(self, *, bases: int = 8, width: int = 500, height: int = 375, latency: float = 0):
        sizes = {"--bases": bases, "--width": width, "--height": height, "--latency": latency}
        options = itertools.chain.from_iterable(sizes.items())
        self._command = [sys.executable, "-m", "peers.image_host", *map(str, options)]

    def __enter__(self) -> "ImageServer":
        self._process = subprocess.Popen(
            self._command, cwd=BENCHMARKS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.__exit__()
            raise RuntimeError("the image server exited early; see its output above")
        self.port = int(line)
        self.url = f"http://{HOST}:{self.port}"
        self.pid = self._process.pid
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.communicate(timeout=5)  # closing its input stops it
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def requests(self) -> dict[str, int]:
        """Returns the number of requests for each path."""
        return self._get("/-/requests")

    def log(self) -> list[dict[str, Any]]:
        """Returns all requests, see `image_host.Request`."""
        return self._get("/-/log")

    def forget(self) -> None:
        """Empties the counts and the log: every path is requested for the first time again."""
        self._get("/-/forget")

    def _get(self, path: str) -> Any:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=30)
        try:
            connection.request("GET", path)
            return json.load(connection.getresponse())
        finally:
            connection.close()
