# SPDX-License-Identifier: BSD-3-Clause
"""Which machines a list may make us talk to.

A list comes from strangers. Its URLs, and whatever they redirect to, reach public addresses only:
neither this machine, nor the network it stands in, nor a cloud's metadata service. The check is
made on the address that the connection is opened to, so a name that resolves differently a moment
later gains nothing. It is ours in all its parts (`web_urls` for the spelling of hosts, the table
here, the resolver, the last look before a socket is made), whatever the HTTP library does itself.
"""

import fnmatch
import ipaddress
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

from aiohttp import abc
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from mlimages_jax.prepare.download.web_urls import BadUrlError, parse_url

# Not reachable as a public host: IANA's special-purpose registries (RFC 6890 and its successors),
# and one address of a cloud. A table of our own, because `ipaddress.is_global` differs between
# versions of Python.
_NOT_PUBLIC_IPV4 = [
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32",  # what Azure's machines know as their host
    )
]  # fmt: skip
# Of IPv6 only this part is given to hosts. Outside of it lie loopback, mapped and translated IPv4
# (::/96, 64:ff9b::/96, 64:ff9b:1::/48), private, link-local, site-local and multicast addresses.
_UNICAST_IPV6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_IPV6 = [
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocols, such as Teredo, whose addresses hold an IPv4 address
        "2001:db8::/32", "3fff::/20",  # documentation
        "2002::/16",  # 6to4, which holds an IPv4 address
    )
]  # fmt: skip


class PrivateAddressError(OSError):
    """A host of a private, loopback or otherwise not public address."""


def is_public(address: str) -> bool:
    """Whether an IP address, in its usual spelling, is one of a public host."""
    ip = ipaddress.ip_address(address.partition("%")[0])  # without the zone of fe80::1%eth0
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is None:
            return ip in _UNICAST_IPV6 and not any(ip in network for network in _NOT_PUBLIC_IPV6)
        ip = ip.ipv4_mapped  # the system connects to this
    return not any(ip in network for network in _NOT_PUBLIC_IPV4)


def check_public(address: str, *, host: str) -> None:
    """Checks an IP address.

    Raises:
        PrivateAddressError: it is not a public unicast one.
    """
    if not is_public(address):
        raise PrivateAddressError(
            f"{host} has the address {address}, which is not a public one; "
            "--allow-private lets it through"
        )


def check_host(host: str) -> None:
    """Checks a host of `web_urls` that is an address; names pass: theirs are not known yet.

    Raises:
        PrivateAddressError: it is not a public one.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return
    check_public(host, host=host)


class PublicResolver(abc.AbstractResolver):
    """Resolves names to public addresses only, and guards the sockets to them.

    Args:
        exempt: hosts that may have any address: those that the user gave, not the list.
    """

    def __init__(self, *, exempt: Sequence[str] = ()):
        self._resolver = ThreadedResolver()
        self._exempt = frozenset(exempt)
        self._exempt_addresses = set(exempt)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[abc.ResolveResult]:
        """The public addresses of a name; PrivateAddressError if it has no such address."""
        results = await self._resolver.resolve(host, port, family)
        if host in self._exempt:
            self._exempt_addresses.update(result["host"] for result in results)
            return results
        public = [result for result in results if is_public(result["host"])]
        if results and not public:
            check_public(results[0]["host"], host=host)
        return public

    def make_socket(self, address: tuple[Any, Any, int, str, tuple[Any, ...]]) -> socket.socket:
        """Makes the socket for an address of `getaddrinfo`, at the last moment to refuse it.

        The library calls this for whatever it is about to connect to, however it got there.

        Raises:
            PrivateAddressError: it is not a public one.
        """
        family, kind, protocol, _, (host, *_) = address
        if host not in self._exempt_addresses:
            check_public(host, host=host)
        return socket.socket(family, kind, protocol)

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
        form = "write PATTERN=BASE, such as '*.staticflickr.com=http://mirror:8080'"
        if not pattern:
            raise ValueError(f"address map {text!r}: {form}")
        try:
            return cls(pattern.lower(), parse_url(base).origin())
        except BadUrlError as error:
            raise ValueError(f"address map {text!r}: {error}; {form}") from error


def mapped(url: URL, maps: Sequence[AddressMap]) -> tuple[URL, str | None]:
    """The URL to ask instead, and the Host header that it needs; the same and None without one."""
    for pattern, base in maps:
        if url.host is not None and fnmatch.fnmatchcase(url.host, pattern):
            return base.join(url.relative()), url.host
    return url, None
