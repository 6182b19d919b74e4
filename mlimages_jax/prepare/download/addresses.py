# SPDX-License-Identifier: BSD-3-Clause
"""Restricts downloads to public addresses.

A URL list comes from strangers. Its URLs, and the targets they redirect to, may reach public
addresses only: not this machine, not its local network, not a cloud's metadata service. The check
applies to the address that the socket connects to, so a host name that resolves differently a
moment later (DNS rebinding) gains nothing. Every part of the check is our own and does not rely on
the HTTP library: `web_urls` for the spelling of hosts, the table below, the resolver, and a final
check before a socket is created.
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

# Addresses that are never a public host: IANA's special-purpose registries (RFC 6890 and its
# successors) and one address of a cloud. The table is our own because `ipaddress.is_global`
# differs between versions of Python.
_NOT_PUBLIC_IPV4 = [
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32",  # Azure's virtual public IP: the host's platform services
    )
]  # fmt: skip
# Only this part of IPv6 is assigned to hosts. Loopback, mapped and translated IPv4
# (::/96, 64:ff9b::/96, 64:ff9b:1::/48), private, link-local, site-local and multicast addresses
# are outside of it.
_UNICAST_IPV6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_IPV6 = [
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocols such as Teredo, whose addresses embed an IPv4 address
        "2001:db8::/32", "3fff::/20",  # documentation
        "2002::/16",  # 6to4 addresses embed an IPv4 address
    )
]  # fmt: skip


class PrivateAddressError(OSError):
    """The host has a private, loopback or other non-public address."""


def is_public(address: str) -> bool:
    """Returns whether an IP address in canonical form belongs to a public host."""
    ip = ipaddress.ip_address(address.partition("%")[0])  # without the zone of fe80::1%eth0
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is None:
            return ip in _UNICAST_IPV6 and not any(ip in network for network in _NOT_PUBLIC_IPV6)
        ip = ip.ipv4_mapped  # the operating system connects to the IPv4 address
    return not any(ip in network for network in _NOT_PUBLIC_IPV4)


def check_public(address: str, *, host: str) -> None:
    """Checks an IP address.

    Raises:
        PrivateAddressError: The address is not a public unicast address.
    """
    if not is_public(address):
        raise PrivateAddressError(
            f"{host} has the address {address}, which is not public; "
            "pass --allow-private to permit it"
        )


def check_host(host: str) -> None:
    """Checks a host that is an IP address; names pass, because they are not resolved yet.

    Args:
        host: In the canonical spelling of `web_urls`.

    Raises:
        PrivateAddressError: The address is not public.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return
    check_public(host, host=host)


class PublicResolver(abc.AbstractResolver):
    """Resolves names to public addresses only, and guards the sockets to them.

    Args:
        exempt: Hosts that may have any address: the user named them, not the list.
    """

    def __init__(self, *, exempt: Sequence[str] = ()):
        # aiohttp's default depends on whether aiodns is installed. This one always asks the system.
        self._resolver = ThreadedResolver()
        self._exempt = frozenset(exempt)
        self._exempt_addresses = set(exempt)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[abc.ResolveResult]:
        """Returns the public addresses of a name.

        Raises:
            PrivateAddressError: The name has addresses, but no public one.
        """
        results = await self._resolver.resolve(host, port, family)
        if host in self._exempt:
            self._exempt_addresses.update(result["host"] for result in results)
            return results
        public = [result for result in results if is_public(result["host"])]
        if results and not public:
            check_public(results[0]["host"], host=host)
        return public

    def make_socket(self, address: tuple[Any, Any, int, str, tuple[Any, ...]]) -> socket.socket:
        """Creates the socket for an address of `getaddrinfo`; the last chance to refuse it.

        The HTTP library calls this for every address it connects to, resolved by us or not.

        Raises:
            PrivateAddressError: The address is not public.
        """
        family, kind, protocol, _, (host, *_) = address
        if host not in self._exempt_addresses:
            check_public(host, host=host)
        return socket.socket(family, kind, protocol)

    async def close(self) -> None:
        """Closes the wrapped resolver."""
        await self._resolver.close()


class AddressMap(NamedTuple):
    """Sends requests for some hosts elsewhere: to a mirror, a cache or a test server.

    Attributes:
        pattern: Pattern of host names, such as "*.staticflickr.com".
        base: Scheme, host and port of the server that answers for them.
    """

    pattern: str
    base: URL

    @classmethod
    def parse(cls, text: str) -> "AddressMap":
        """Parses "*.staticflickr.com=http://mirror:8080"; raises ValueError for other forms."""
        pattern, _, base = text.partition("=")
        form = "write PATTERN=BASE, such as '*.staticflickr.com=http://mirror:8080'"
        if not pattern:
            raise ValueError(f"address map {text!r}: {form}")
        try:
            return cls(pattern.lower(), parse_url(base).origin())
        except BadUrlError as error:
            raise ValueError(f"address map {text!r}: {error}; {form}") from error


def mapped(url: URL, maps: Sequence[AddressMap]) -> tuple[URL, str | None]:
    """Returns the URL to request and the Host header it needs: (`url`, None) if no map matches."""
    for pattern, base in maps:
        if url.host is not None and fnmatch.fnmatchcase(url.host, pattern):
            return base.join(url.relative()), url.host
    return url, None
