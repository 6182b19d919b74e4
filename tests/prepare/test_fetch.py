# SPDX-License-Identifier: BSD-3-Clause
import asyncio
import datetime
import email.utils
import functools
import os
import resource
import socket
import time
from urllib.parse import quote

import pytest

from mlimages_jax.data.images.decode import verify
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.download import addresses
from mlimages_jax.prepare.download.addresses import AddressMap
from mlimages_jax.prepare.download.fetch import Fetcher, FetchError, Limits, retry_after
from mlimages_jax.prepare.storing import StorageError

# Busy machines need seconds for what takes milliseconds; only what waits for the end is impatient.
LIMITS = Limits(timeout=20, max_bytes=1_000_000, max_redirects=3)
IMPATIENT = Limits(timeout=0.5, max_bytes=1_000_000, max_redirects=3)


def fetch(url, path, *, limits=LIMITS, allow_private=True, **options):
    async def run():
        fetcher = Fetcher(limits=limits, connections=4, user_agent="test",
                          allow_private=allow_private, **options)  # fmt: skip
        async with fetcher:
            return await fetcher.fetch(url, path)

    return asyncio.run(run())


def refused(url, path, **options):
    with pytest.raises(FetchError) as error:
        fetch(url, path, **options)
    return error.value


@pytest.mark.parametrize("kind", ["ok", "chunked", "redirect", "slow", "cmyk"])
def test_images_arrive(image_server, tmp_path, kind):
    path = tmp_path / "file"
    fetch(f"{image_server.url}/{kind}/1.jpg", path)
    verify(path.read_bytes())


@pytest.mark.parametrize(
    ("kind", "error", "status", "passing"),
    [
        ("404", "http_404", 404, False),
        ("410", "http_410", 410, False),
        ("500", "http_500", 500, True),
        ("429", "http_429", 429, True),
        ("http-date", "http_503", 503, True),
        ("timeout", "timeout", None, True),
        ("stall", "timeout", None, True),
        ("reset", "incomplete", None, True),
        ("truncated", "incomplete", None, True),
        ("loop", "redirects", None, False),
        ("large", "too_many_bytes", 200, False),
        ("endless", "too_many_bytes", 200, False),
        ("unavailable", "placeholder", 302, False),
    ],
)
def test_failures_have_names(image_server, tmp_path, kind, error, status, passing):
    limits = IMPATIENT if error == "timeout" else LIMITS
    found = refused(f"{image_server.url}/{kind}/fetch.jpg", tmp_path / "file", limits=limits)
    assert (found.error, found.http_status, found.passing) == (error, status, passing)
    assert found.is_busy == (status in (429, 503))
    assert found.is_network == (error == "timeout")
    if found.is_busy:
        assert 0 <= found.retry_after <= 1
    if (tmp_path / "file").exists():
        assert (tmp_path / "file").stat().st_size <= LIMITS.max_bytes


def test_an_answer_that_takes_forever_ends(image_server, tmp_path):
    limits = Limits(timeout=0.05)  # a byte comes every 0.2 s, but no longer than ten time-outs
    assert refused(f"{image_server.url}/crawl/1.jpg", tmp_path / "f", limits=limits).is_network


def test_nobody_there(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        found = refused(f"http://127.0.0.1:{port}/1.jpg", tmp_path / "file")
    assert (found.error, found.is_network, found.passing) == ("connection", True, True)
    found = refused("http://name.invalid/1.jpg", tmp_path / "file")
    assert (found.error, found.is_network) == ("dns", True)


def test_no_http_at_all(tmp_path):
    async def run():
        async def answer(_, writer):
            writer.write(b"220 this is a mail server\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, Fetcher(limits=LIMITS, connections=1, user_agent="test",
                                   allow_private=True) as fetcher:  # fmt: skip
            await fetcher.fetch(f"http://127.0.0.1:{port}/1.jpg", tmp_path / "file")

    with pytest.raises(FetchError) as error:
        asyncio.run(run())
    assert error.value.error == "protocol"


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://a.org/1.jpg", "gopher://127.0.0.1:6379/_", "http://"]
)
def test_redirects_lead_to_the_web_only(image_server, tmp_path, target):
    found = refused(f"{image_server.url}/to/{quote(target, safe='')}", tmp_path / "file")
    assert found.error in ("redirects", "bad_url")
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "localhost.", "LOCALHOST", "[::1]", "169.254.169.254", "127.1",
     "2130706433", "0x7f.1", "0177.0.0.1", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "0",
     "%31%32%37.0.0.1", "user@127.0.0.1", "127\u30020\uff0e0\uff611", "[fe80::1%25lo]"],
)  # fmt: skip
def test_private_addresses_are_not_asked(image_server, tmp_path, host):
    before = image_server.requests()
    url = f"http://{host}:{image_server.port}/ok/private.jpg"
    found = refused(url, tmp_path / "file", allow_private=False)
    assert found.error == "private_address"
    assert image_server.requests().get("/ok/private.jpg") == before.get("/ok/private.jpg")


def test_a_redirect_to_a_private_address_is_not_followed(image_server, tmp_path, monkeypatch):
    # Plays a public host that redirects into our network.
    resolver = functools.partial(addresses.PublicResolver, exempt=["localhost"])
    monkeypatch.setattr(addresses, "PublicResolver", lambda exempt: resolver())
    target = quote(f"{image_server.url}/ok/7.jpg", safe="")
    url = f"http://localhost:{image_server.port}/to/{target}"
    assert refused(url, tmp_path / "file", allow_private=False).error == "private_address"
    fetch(url, tmp_path / "file")


def test_mapped_hosts(image_server, tmp_path):
    maps = [AddressMap.parse(f"*.staticflickr.com={image_server.url}")]
    url = "https://farm2.staticflickr.com/2034/1_2_o.jpg"
    fetch(url, tmp_path / "file", maps=maps, allow_private=False)
    assert image_server.requests()["/2034/1_2_o.jpg"] == 1
    there = f"http://localhost:{image_server.port}"
    named = [AddressMap.parse(f"a.org={there}")]
    fetch("http://a.org/ok/1.jpg", tmp_path / "file", maps=named, allow_private=False)
    redirect = f"http://a.org/to/{quote(image_server.url + '/ok/1.jpg', safe='')}"
    found = refused(redirect, tmp_path / "file", maps=named, allow_private=False)
    assert found.error == "private_address"


def test_a_proxy_is_asked_and_may_be_private(image_server, tmp_path):
    url = "http://images.invalid/ok/by_proxy.jpg"
    found = refused(url, tmp_path / "f", proxy="http://127.0.0.1:9", allow_private=False)
    assert found.error == "connection" and "127.0.0.1:9" in str(found)
    fetch(url, tmp_path / "f", proxy=image_server.url, allow_private=False)
    assert image_server.requests()["/ok/by_proxy.jpg"] == 1


def test_a_file_that_cannot_be_written_is_no_fault_of_the_server(image_server, tmp_path):
    with pytest.raises(StorageError, match="Free some space"):
        fetch(f"{image_server.url}/ok/1.jpg", tmp_path / "absent" / "file")


def test_a_connection_that_this_machine_cannot_open_is_no_fault_of_the_server(
    image_server, tmp_path
):
    async def run():
        async with Fetcher(limits=LIMITS, connections=1, user_agent="test",
                           allow_private=True) as fetcher:  # fmt: skip
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            os.close(free := os.dup(0))  # the lowest one
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
            try:
                await fetcher.fetch(f"{image_server.url}/ok/1.jpg", tmp_path / "file")
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    with pytest.raises(PrepareError, match=r"opened \(Too many open files\): give fewer --conn"):
        asyncio.run(run())


def test_retry_after():
    assert retry_after("120") == 120
    assert retry_after(None) is None
    assert retry_after("soon") is None
    assert retry_after("Mon, 05 Jan 2026 00:00:00 +" + "9" * 30) is None  # a time zone
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=90)
    assert 80 < retry_after(email.utils.format_datetime(later, usegmt=True)) <= 90
    assert retry_after(email.utils.formatdate(time.time() - 500, usegmt=True)) == 0
