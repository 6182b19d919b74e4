# SPDX-License-Identifier: BSD-3-Clause
import asyncio
import socket

import pytest
from aiohttp import abc
from yarl import URL

from mlimages_jax.prepare.download import addresses
from mlimages_jax.prepare.download.addresses import (
    AddressMap,
    PrivateAddressError,
    PublicResolver,
    mapped,
)

PRIVATE = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "0.1.2.3", "10.1.2.3", "172.16.0.1", "172.31.255.255",
    "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200", "100.127.255.255",
    "192.0.0.192", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.19.255.255", "198.51.100.1",
    "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "168.63.129.16",
    "::1", "::", "::127.0.0.1", "::8.8.8.8", "fe80::1%eth0", "fe80::1", "febf::1", "fec0::1",
    "feff::1", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::8.8.8.8", "64:ff9b:1::1", "100::1",
    "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:10::1", "2001:20::1", "2001:db8::1",
    "2002:7f00:1::", "2002:808:808::1", "3fff::1", "4000::1", "5f00::1", "200::1",
]  # fmt: skip
PUBLIC = [
    "8.8.8.8", "1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0",
    "126.255.255.255", "128.0.0.0", "169.253.255.255", "172.15.255.255", "172.32.0.0",
    "191.255.1.1", "192.0.1.1", "192.167.1.1", "192.169.1.1", "198.17.255.255", "198.20.0.0",
    "223.255.255.255",
    "2606:4700::1111", "::ffff:8.8.8.8", "2001:4860:4860::8888", "2001:200::1", "2a00::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_refused(address):
    with pytest.raises(PrivateAddressError, match=r"a\.org has the address .* --allow-private"):
        addresses.check_public(address, host="a.org")


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address):
    addresses.check_public(address, host="a.org")


class Answers(abc.AbstractResolver):
    """A name server's answers."""

    def __init__(self, *addresses):
        self.addresses = addresses

    async def resolve(self, host, port=0, family=socket.AF_INET):
        return [
            {"hostname": host, "host": address, "port": port, "family": family, "proto": 0,
             "flags": socket.AI_NUMERICHOST}
            for address in self.addresses
        ]  # fmt: skip

    async def close(self):
        pass


@pytest.mark.parametrize(
    ("answers", "public"),
    [(["8.8.8.8"], ["8.8.8.8"]), (["127.0.0.1", "8.8.8.8"], ["8.8.8.8"]),
     (["10.0.0.1", "::1"], None), (["64:ff9b::7f00:1"], None),
     (["2606:4700::1111", "fec0::1"], ["2606:4700::1111"]), ([], [])],
)  # fmt: skip
def test_of_many_answers_the_public_ones_are_taken(monkeypatch, answers, public):
    monkeypatch.setattr(addresses, "ThreadedResolver", lambda: Answers(*answers))
    if public is None:
        with pytest.raises(PrivateAddressError, match=r"a\.org has the address"):
            resolve("a.org")
    else:
        assert resolve("a.org") == public
    assert resolve("a.org", exempt=["a.org"]) == answers


def socket_for(resolver, address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    info = (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, 80))
    resolver.make_socket(info).close()


def test_no_socket_is_made_for_a_private_address_however_the_library_got_it(monkeypatch):
    async def run():
        resolver = PublicResolver(exempt=["a.org", "10.0.0.1"])
        socket_for(resolver, "8.8.8.8")
        for address in PRIVATE:
            with pytest.raises(PrivateAddressError):
                socket_for(resolver, address)
        socket_for(resolver, "10.0.0.1")
        monkeypatch.setattr(resolver, "_resolver", Answers("192.168.1.9"))
        await resolver.resolve("a.org", 80)
        socket_for(resolver, "192.168.1.9")
        await resolver.close()

    asyncio.run(run())


def resolve(host, **options):
    async def run():
        resolver = PublicResolver(**options)
        try:
            return [r["host"] for r in await resolver.resolve(host, 80, socket.AF_INET)]
        finally:
            await resolver.close()

    return asyncio.run(run())


def test_a_name_is_as_private_as_its_address():
    with pytest.raises(PrivateAddressError, match="localhost has the address 127"):
        resolve("localhost")
    assert resolve("localhost", exempt=["localhost"]) == ["127.0.0.1"]


def test_hosts_are_mapped():
    maps = [AddressMap.parse("*.staticflickr.com=http://mirror:8080/ignored?x"),
            AddressMap.parse("A.org=https://b.org")]  # fmt: skip
    flickr = URL("https://farm2.staticflickr.com/2034/1_o.jpg?a=b%20c")
    assert mapped(flickr, maps) == (
        URL("http://mirror:8080/2034/1_o.jpg?a=b%20c"), "farm2.staticflickr.com",
    )  # fmt: skip
    assert mapped(URL("http://a.org:81/"), maps) == (URL("https://b.org/"), "a.org")
    other = URL("http://staticflickr.com/")
    assert mapped(other, maps) == (other, None)


@pytest.mark.parametrize(
    "text", ["a.org", "=http://b", "a.org=b.org", "a.org=ftp://b", "a=http://"]
)
def test_a_map_that_says_nothing(text):
    with pytest.raises(ValueError, match="write PATTERN=BASE"):
        AddressMap.parse(text)
