# SPDX-License-Identifier: BSD-3-Clause
"""Which machines a list may make us talk to.

A list comes from strangers. Its URLs, and whatever they redirect to, reach public addresses only:
neither this machine, nor the network it stands in, nor a cloud's metadata service. The check is
made on the address that the connection is opened to, so a name that resolves differently a moment
later gains nothing.
"""

import fnmatch
import ipaddress
import socket
from collections.abc import Sequence
from typing import NamedTuple

from aiohttp import abc
from aiohttp.resolver import ThreadedResolver
from yarl import URL


class PrivateAddressError(OSError):
    """A host of a private, loopback or otherwise not public address."""


def check_public(address: str, *, host: str) -> None:
    """Checks an IP address.

    Raises:
        PrivateAddressError: it is not a public unicast one.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])  # without the zone of fe80::1%eth0
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip.sixtofour or ip
    if not ip.is_global or ip.is_multicast:
        raise PrivateAddressError(
            f"{host} has the address {address}, which is not a public one; "
            "--allow-private lets it through"
        )


class PublicResolver(abc.AbstractResolver):
    """Resolves names to public addresses only.

    Args:
        exempt: names that may have any address: those that the user gave, not the list.
    """

    def __init__(self, *, exempt: Sequence[str] = ()):
        self._resolver = ThreadedResolver()
        self._exempt = frozenset(exempt)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[abc.ResolveResult]:
        """The addresses of a name; PrivateAddressError if one of them is not public."""
        results = await self._resolver.resolve(host, port, family)
        if host not in self._exempt:
            for result in results:
                check_public(result["host"], host=host)
        return results

    async def close(self) -> None:
        """Nothing to release."""
        await self._resolver.close()


class AddressMap(NamedTuple):
    """Sends requests for some hosts elsewhere: to a mirror, a cache, a server of a test.

    Attributes:
        pattern: of host names, such as "*.staticflickr.com".
        base: scheme, host and port that answer for them.
    """

    pattern: str
    base: URL

    @classmethod
    def parse(cls, text: str) -> "AddressMap":
        """Reads "*.staticflickr.com=http://mirror:8080"; ValueError if it is not of that form."""
        pattern, _, base = text.partition("=")
        url = URL(base)
        if not pattern or url.scheme not in ("http", "https") or not url.host:
            raise ValueError(
                f"address map {text!r}: write PATTERN=BASE, such as "
                "'*.staticflickr.com=http://mirror:8080'"
            )
        return cls(pattern.lower(), url.origin())


def mapped(url: URL, maps: Sequence[AddressMap]) -> tuple[URL, str | None]:
    """The URL to ask instead, and the Host header that it needs; the same and None without one."""
    for pattern, base in maps:
        if url.host is not None and fnmatch.fnmatchcase(url.host.lower(), pattern):
            return base.join(url.relative()), url.host
    return url, None
