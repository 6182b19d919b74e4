# SPDX-License-Identifier: BSD-3-Clause
import asyncio
import socket

import pytest
from yarl import URL

from mlimages_jax.prepare.download import addresses
from mlimages_jax.prepare.download.addresses import (
    AddressMap,
    PrivateAddressError,
    PublicResolver,
    mapped,
)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1",
     "169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::",
     "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
     "2002:7f00:0001::"],
)  # fmt: skip
def test_private_addresses_are_refused(address):
    with pytest.raises(PrivateAddressError, match=r"a\.org has the address .* --allow-private"):
        addresses.check_public(address, host="a.org")


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_pass(address):
    addresses.check_public(address, host="a.org")


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
