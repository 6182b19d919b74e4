# SPDX-License-Identifier: BSD-3-Clause
"""One spelling for every host, whatever the HTTP library makes of it."""

import random
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from mlimages_jax.prepare.download import addresses
from mlimages_jax.prepare.download.web_urls import BadUrlError, join, parse_url, plain_host
from tests.support import fuzzing

LOOPBACK = [
    "127.0.0.1", "2130706433", "017700000001", "0x7f000001", "0X7F000001", "127.1", "127.0.1",
    "0177.0.0.1", "0x7f.1", "0x7f.0x0.0x0.0x1", "127.0.0.1.", "127.0.0x0.01", "%31%32%37.0.0.1",
    "127%2e0%2e0%2e1", "127\u30020\uff0e0\uff611", "\uff11\uff12\uff17.0.0.1",
    "\u2460\u2461\u2466.1", "127.\u2080.\u2070.1", "0000000177.0.0.1",
]  # fmt: skip
# What is no host, also where a resolver might find an address in it.
BAD = [
    "", ".", "..", "a..b", ".a", "a b", "a\0b", "a/b", "a\\b", "a@b", "a#b", "a?b", "a%00b",
    "a%2fb", "*.org", "1.2.3.4.5", "256.1.1.1", "1.2.3.256", "1.2.65536", "4294967296",
    "0x100000000", "1.2.3.08", "a.1", "1..2", "9" * 30, "\u0661\u0662\u0667.1", "::1::", "1:2", ":",
    "x" * 64, "a." * 127 + "ab", "\ufffd", "127.0.0.1 x", "\u00ad",
]  # fmt: skip


@pytest.mark.parametrize("host", LOOPBACK)
def test_an_address_has_one_spelling(host):
    assert plain_host(host) == "127.0.0.1"
    with pytest.raises(addresses.PrivateAddressError):
        addresses.check_host(plain_host(host))
    if not host.endswith("."):  # which yarl keeps
        assert parse_url(f"http://{host}:81/x?y").host == "127.0.0.1"


@pytest.mark.parametrize("host", BAD)
def test_what_is_no_host_is_refused(host):
    with pytest.raises(BadUrlError) as error:
        plain_host(host)
    str(error.value).encode()
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("host", "plain"),
    [("A.Org", "a.org"), ("a.org.", "a.org"), ("fa\u00df.de", "xn--fa-hia.de"),
     ("a_b.org", "a_b.org"), ("-a.org", "-a.org"), ("xn--fa-hia.de", "xn--fa-hia.de"),
     ("\uff21.org", "a.org"), ("1a.2b", "1a.2b"), ("8.8.8.8", "8.8.8.8"), ("010.8.8.8", "8.8.8.8"),
     ("::FFFF:1.2.3.4", "::ffff:102:304"), ("2606:4700:0::1111", "2606:4700::1111"),
     ("fe80::1%25eth0", "fe80::1")],
)  # fmt: skip
def test_other_hosts(host, plain):
    assert plain_host(host) == plain


@given(st.integers(0, 2**32 - 1), st.randoms(use_true_random=False))
def test_every_spelling_of_every_address(value, randomness):
    parts = randomness.choice([[32], [8, 24], [8, 8, 16], [8, 8, 8, 8]])
    left, written = 32, []
    for bits in parts:
        left -= bits
        number = value >> left & (1 << bits) - 1
        written.append(randomness.choice(["{}", "0x{:x}", "0{:o}", "0X{:X}"]).format(number))
    host = ".".join(written)
    expected = socket.inet_ntoa(value.to_bytes(4, "big"))
    assert plain_host(host) == expected == socket.inet_ntoa(socket.inet_aton(host))


@given(
    st.text(st.sampled_from("0127.xXfF:%\u3002\uff0e\uff11abz-_[]/@\\ \0\xad\u0661"), max_size=14)
)
def test_no_resolver_finds_an_address_in_a_name(host):
    """What passes as a name is none to the system's own parser, however odd its rules are."""
    try:
        plain = plain_host(host)
    except BadUrlError:
        return
    try:
        address = socket.inet_ntoa(socket.inet_aton(plain))
    except OSError:
        return
    assert plain == address


@pytest.mark.parametrize(
    ("place", "target"),
    [("/b", "http://a.org/b"), ("c?d=e%20f", "http://a.org/x/c?d=e%20f"), ("//B.org/", "http://b.org/"),
     ("https://b.org:8/", "https://b.org:8/"), ("/gr\u00fc\u00dfe", "http://a.org/gr%C3%BC%C3%9Fe"),
     ("/\udce9", "http://a.org/%E9"), ("http://127.1/", "http://127.0.0.1/"), ("/a b", "http://a.org/a%20b"),
     ("http://fa\u00df.de/", "http://xn--fa-hia.de/")],
)  # fmt: skip
def test_redirects(place, target):
    assert str(join(URL("http://a.org/x/y"), place)) == str(URL(target))


@pytest.mark.parametrize(
    "place",
    ["javascript:alert(1)", "data:image/jpeg;base64,/9j/", "file:///etc/passwd", "ftp://a.org/",
     "https://[::1]8/", "http://xn--a.org/", "http://a:99999/", "/" + "x" * 9000],
)  # fmt: skip
def test_redirects_to_nowhere(place):
    with pytest.raises(BadUrlError):
        join(URL("http://a.org/x/y"), place)


@pytest.mark.parametrize(
    "cases", [500, pytest.param(fuzzing.fraction(10_000), marks=pytest.mark.slow)]
)
def test_any_text_is_a_url_or_a_bad_one(cases):
    generator = random.Random(cases)
    alphabet = "htp:/[]@\\.%0123456789abcxn-_?#=& \t\0\xff\u3002\uff11\u202e\udcff"
    for _ in range(cases):
        text = "".join(generator.choices(alphabet, k=generator.randrange(30)))
        for url in (text, f"http://{text}", f"http://a.org{text}", f"https://[{text}]"):
            try:
                host = parse_url(url).raw_host
            except BadUrlError:
                continue
            assert host == plain_host(host)
