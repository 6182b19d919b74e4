# SPDX-License-Identifier: BSD-3-Clause
"""A server of images on this machine that plays good and bad hosts, for tests and benchmarks.

The path alone decides what is answered (the Host header and a query are ignored), so one server
plays any number of hosts and any run can be repeated. Every image has an own path, and every path
other bytes: they differ in a comment inside the file, the pixels are those of a few base images.

    /ok/7.jpg           a JPEG; so does any other path that ends in .jpg and is not named below
    /redirect/7.jpg     301 to /ok/7.jpg
    /chunked/7.jpg      the JPEG, in chunks without a length
    /slow/7.jpg         the JPEG, in half a second
    /png/7.png          a PNG
    /cmyk/7.jpg         a JPEG of four components
    /flaky/7.jpg        500 the first time, then the JPEG
    /busy/7.jpg         429 with Retry-After: 1 the first time, then the JPEG

    /404/x /403/ /410/ /500/    this status
    /429/x              429 with Retry-After: 1
    /http-date/x        503 with a Retry-After that is a date, in one second
    /timeout/x          no answer
    /hangup/x           the connection is closed instead of an answer
    /stall/x            the headers and half of the JPEG, then nothing
    /crawl/x            the JPEG, a byte every 0.2 s: hours
    /reset/x            the connection is reset in the middle of the JPEG
    /truncated/x        less than the promised length, then a clean close
    /cut/x              a complete answer, whose JPEG ends in the middle
    /html/x             a page of text that calls itself image/jpeg
    /placeholder/x      one and the same JPEG for all
    /unavailable/x      302 to /pw/images/en-us/photo_unavailable.png, as Flickr does
    /loop/x             302 to itself
    /to/TARGET          302 to the target, which is URL-encoded: /to/file%3A%2F%2F%2Fetc%2Fpasswd
    /large/x            1 GB
    /endless/x          chunks without end
    /empty/x            200 with no bytes
    /bomb/x             a few kB of JPEG that claim 65,000 x 65,000 pixels
    /-/requests         how often each path was asked for, as JSON

By hand, until its input ends:

    cd benchmarks && python -m peers.image_host --port 8000
"""

import http.client
import itertools
import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"


class ImageServer:
    """A server in a process of its own, which ends with this one; a context manager.

    Args:
        bases: How many images differ in their pixels.
        width: Of the images; 500 x 375 makes 100 kB each.
        height: Likewise.

    Attributes:
        port: On 127.0.0.1, once entered.
        url: Without a slash at the end.
        pid: Of the process.
    """

    def __init__(self, *, bases: int = 8, width: int = 500, height: int = 375):
        sizes = {"--bases": bases, "--width": width, "--height": height}
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
            raise RuntimeError("the image server ended early; see what it wrote above")
        self.port = int(line)
        self.url = f"http://{HOST}:{self.port}"
        self.pid = self._process.pid
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.communicate(timeout=5)  # closes its input, the sign to end
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def requests(self) -> dict[str, int]:
        """How often each path was asked for."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=30)
        try:
            connection.request("GET", "/-/requests")
            return json.load(connection.getresponse())
        finally:
            connection.close()
