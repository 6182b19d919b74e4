# SPDX-License-Identifier: BSD-3-Clause
"""Downloads one URL to one file, with redirects and limits, and names every kind of failure."""

import asyncio
import dataclasses
import email.utils
import math
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from mlimages_jax.files.machine_faults import lacking
from mlimages_jax.prepare import PrepareError, placeholders
from mlimages_jax.prepare.download import addresses, robots_tag, web_urls
from mlimages_jax.prepare.storing import writing

_REDIRECTS = {301, 302, 303, 307, 308}
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # temporary: a retry may get another answer
_NETWORK = {"dns", "connection", "timeout"}  # no server answered
_SHOWN_URL = 500  # characters of an untrusted URL or reason that a message repeats
_ROBOTS_TAG = "robots_tag"
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]*)?")


class FetchError(Exception):
    """The file could not be fetched.

    Attributes:
        error: Machine-readable kind: http_404, timeout, connection, redirects, ...
        http_status: Status of the last response, or None.
        passing: Whether the failure is temporary, so that a retry may succeed.
        retry_after: Seconds the server asks clients to wait, or None.
    """

    def __init__(
        self,
        error: str,
        message: str,
        *,
        http_status: int | None = None,
        passing: bool = False,
        retry_after: float | None = None,
    ):
        super().__init__(message)
        self.error = error
        self.http_status = http_status
        self.passing = passing
        self.retry_after = retry_after

    @property
    def is_network(self) -> bool:
        """True if no server answered at all, as when this machine is offline."""
        return self.error in _NETWORK

    @property
    def is_busy(self) -> bool:
        """True if the server asks for fewer requests (429 or 503)."""
        return self.http_status in (429, 503)

    @property
    def is_refusal(self) -> bool:
        """True if the owner opted out of data sets; other sources must not be tried then."""
        return self.error == _ROBOTS_TAG


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of one request.

    Attributes:
        timeout: Seconds to connect, and seconds without a byte of the response. The complete
            request may take ten times as long.
        max_bytes: Maximum size of a file.
        max_redirects: Maximum number of redirects in a row.
    """

    timeout: float = 30.0
    max_bytes: int = 50_000_000
    max_redirects: int = 5


class Fetcher:
    """Fetches files over HTTP; use it as an asynchronous context manager.

    Args:
        limits: Limits of every request.
        connections: Maximum number of open connections.
        user_agent: The User-Agent header; many servers refuse requests without one.
        proxy: URL of an HTTP proxy, which then resolves the host names.
        maps: Hosts replaced by other servers. These, like the proxy, may have private addresses.
        allow_private: Also connect to addresses that are not public.
        ignore_robots_tag: Also fetch images whose owner opted out, see `robots_tag`.

    Raises:
        BadUrlError: The URL of the proxy is invalid.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        connections: int,
        user_agent: str,
        proxy: str | None = None,
        maps: Sequence[addresses.AddressMap] = (),
        allow_private: bool = False,
        ignore_robots_tag: bool = False,
    ):
        self._limits = limits
        self._connections = connections
        self._user_agent = user_agent
        self._proxy = None if proxy is None else web_urls.parse_url(proxy)
        self._maps = maps
        self._allow_private = allow_private
        self._robots = None if ignore_robots_tag else robots_tag.names_of(user_agent)

    async def __aenter__(self) -> "Fetcher":
        named = [base for _, base in self._maps] + ([self._proxy] if self._proxy else [])
        exempt = [url.host or "" for url in named]
        guard = None if self._allow_private else addresses.PublicResolver(exempt=exempt)
        timeout = self._limits.timeout
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._connections,
                resolver=guard,
                socket_factory=guard.make_socket if guard else None,
            ),
            timeout=aiohttp.ClientTimeout(
                total=10 * timeout, sock_connect=timeout, sock_read=timeout
            ),
            # Images barely compress, and a compressed response could expand without limit.
            headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity"},
            auto_decompress=False,
            # The default jar would keep the cookies of every host of a list.
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=1 << 18,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def fetch(self, url: str, path: Path) -> None:
        """Writes the body of a response with HTTP status 200 to a file.

        The file is incomplete if this raises.

        Raises:
            FetchError: There was no response, or not one with a file.
            StorageError: The file cannot be written.
            PrepareError: This machine has no open files or memory left for a connection.
        """
        try:
            target = web_urls.parse_url(url)
        except web_urls.BadUrlError as error:
            raise FetchError("bad_url", str(error)) from error
        try:
            for _ in range(self._limits.max_redirects + 1):
                following = await self._request(target, path)
                if following is None:
                    return
                target = following
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Only of the system's errors: words of others may come from the server.
            if isinstance(error, OSError) and (fault := lacking(error)):
                raise PrepareError(
                    f"no connection can be opened ({fault.strerror}): give fewer --connections or "
                    "raise the limit (ulimit -n), then run the same command again to resume"
                ) from error
            raise _classify(error) from error
        place = str(target)[:_SHOWN_URL]
        message = f"more than {self._limits.max_redirects} redirects, the last one to {place}"
        raise FetchError("redirects", message)

    async def _request(self, url: URL, path: Path) -> URL | None:
        """Requests one URL: returns where it redirects, or None once the file is written."""
        request, host = addresses.mapped(url, self._maps)
        if host is None and not self._allow_private:
            try:
                addresses.check_host(request.host or "")
            except addresses.PrivateAddressError as error:
                raise FetchError("private_address", str(error)) from error
        headers = {"Host": host} if host else None
        # `fetch` follows redirects, because each target must pass the checks of a first URL.
        async with self._session.get(
            request, headers=headers, allow_redirects=False, proxy=self._proxy
        ) as response:
            if response.status in _REDIRECTS:
                return self._redirect(url, response)
            _check_status(response)
            self._check_robots(response)
            await self._write(response, path)
            return None

    def _check_robots(self, response: aiohttp.ClientResponse) -> None:
        if self._robots is None:
            return
        headers = response.headers.getall("X-Robots-Tag", [])
        if word := robots_tag.refusal(headers, names=self._robots):
            message = f"X-Robots-Tag: {word}: the owner opted out of data sets"
            raise FetchError(_ROBOTS_TAG, message, http_status=response.status)

    def _redirect(self, url: URL, response: aiohttp.ClientResponse) -> URL:
        location = response.headers.get("Location")
        if not location:
            message = f"HTTP {response.status} without a Location header"
            raise FetchError("redirects", message, http_status=response.status)
        try:
            target = web_urls.join(url, location)
        except web_urls.BadUrlError as error:
            message = f"redirected to a URL that cannot be fetched: {error}"
            raise FetchError("redirects", message, http_status=response.status) from error
        if placeholders.known_place(target):
            message = f"redirected to the placeholder {str(target)[:_SHOWN_URL]}"
            raise FetchError("placeholder", message, http_status=response.status)
        return target

    async def _write(self, response: aiohttp.ClientResponse, path: Path) -> None:
        limit = self._limits.max_bytes
        if response.content_length is not None and response.content_length > limit:
            raise _too_many_bytes(f"{response.content_length:,} bytes", limit)
        written = 0
        with writing(path):
            file = path.open("wb")
        with file:
            async for block in response.content.iter_any():
                written += len(block)
                if written > limit:
                    raise _too_many_bytes("the response is still running", limit)
                with writing(path):
                    # A write to the page cache costs less than handing the block to a thread.
                    file.write(block)
            with writing(path):
                file.flush()


def _too_many_bytes(what: str, limit: int) -> FetchError:
    message = f"{what}, more than the {limit:,} of --max-bytes"
    return FetchError("too_many_bytes", message, http_status=200)


def _check_status(response: aiohttp.ClientResponse) -> None:
    status = response.status
    if status != 200:
        raise FetchError(
            f"http_{status}",
            f"HTTP {status} {(response.reason or '')[:_SHOWN_URL]}".strip(),
            http_status=status,
            passing=status in _PASSING,
            retry_after=retry_after(response.headers.get("Retry-After")),
        )


def retry_after(text: str | None) -> float | None:
    """Returns the seconds of a Retry-After header: a number or an HTTP date (RFC 9110, 10.2.3).

    Returns None if the header is missing or cannot be parsed, and infinity for dates beyond the
    range of the clock.
    """
    if text is None:
        return None
    if _SECONDS.fullmatch(text.strip()):
        return float(text)
    try:
        when = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):  # depends on the fault and on Python
        return None
    try:
        return max(0.0, when.timestamp() - time.time())
    except (OverflowError, ValueError):
        return math.inf if when.year > 2000 else 0.0


def _classify(error: Exception) -> FetchError:
    """Translates errors of the HTTP library into `FetchError`s."""
    # The order matters: in aiohttp an InvalidURL, for example, is a ValueError too.
    message = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
    cause: Any = getattr(error, "os_error", None) or error.__cause__
    if isinstance(cause, addresses.PrivateAddressError):
        return FetchError("private_address", str(cause))
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return FetchError("timeout", "timed out", passing=True)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return FetchError("dns", message, passing=True)
    if isinstance(error, aiohttp.ClientSSLError):
        return FetchError("tls", message)
    if isinstance(error, aiohttp.ClientPayloadError):
        return FetchError("incomplete", f"the response broke off: {message}", passing=True)
    if isinstance(error, aiohttp.InvalidURL):
        return FetchError("bad_url", message)
    if isinstance(error, aiohttp.ClientResponseError | ValueError):  # e.g. Content-Length: 5,6
        return FetchError("protocol", message, passing=True)
    return FetchError("connection", message, passing=True)
