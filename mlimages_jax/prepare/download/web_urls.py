# SPDX-License-Identifier: BSD-3-Clause
"""Parses a text into a URL with a canonical host before any library sees it.

The meaning of a host must not depend on who parses it: `2130706433`, `0x7f.1` and `127.0.0.1` in
full-width digits are all 127.0.0.1 to one resolver or another. Here every host becomes either an
IP address in canonical form or a plain name that no resolver takes for an address; anything else
is rejected. Numbers are parsed by the rules of browsers (WHATWG URL, "host parsing").
"""

import functools
import ipaddress
import re
import unicodedata
from urllib.parse import quote_from_bytes, unquote_to_bytes

from yarl import URL

_LONGEST_URL = 8_192  # characters; common servers accept no more
_IN_URLS = "%" + "!#$&'()*+,/:;=?@[]~"  # kept unquoted, so existing escapes survive
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
# Full stops of East Asian scripts, which browsers read as dots (UTS 46).
_DOTS = str.maketrans("\u3002\uff0e\uff61", "...")
_BASES = ((re.compile(r"0x([0-9a-f]*)"), 16), (re.compile(r"0([0-7]*)"), 8),
          (re.compile(r"([1-9][0-9]*)"), 10))  # fmt: skip


class BadUrlError(ValueError):
    """The text is not an http or https URL, or cannot be requested."""


def parse_url(text: str) -> URL:
    """Parses a URL; its host becomes an ASCII name or an IP address in canonical form.

    Raises:
        BadUrlError: The URL cannot be fetched; the message says why.
    """
    if len(text) > _LONGEST_URL:
        raise BadUrlError(f"URL has {len(text):,} characters, the maximum is {_LONGEST_URL:,}")
    try:
        return _with_plain_host(URL(text))
    except BadUrlError:
        raise
    except Exception as error:  # the parser's error types are not documented
        raise BadUrlError(f"{text[:200]!r} is not a valid URL ({error})") from error


def join(url: URL, place: str) -> URL:
    """Resolves the target of a redirect.

    Args:
        url: The URL that redirects, parsed by this module.
        place: The Location header. Some servers put unescaped UTF-8 or Latin-1 into it.

    Raises:
        BadUrlError: The target cannot be fetched; the message says why.
    """
    text = quote_from_bytes(place.encode("utf-8", "surrogateescape"), safe=_IN_URLS)
    if len(text) > _LONGEST_URL:
        raise BadUrlError(f"URL has {len(text):,} characters, the maximum is {_LONGEST_URL:,}")
    try:
        return _with_plain_host(url.join(URL(text)))
    except BadUrlError:
        raise
    except Exception as error:  # as above
        raise BadUrlError(f"{text[:200]!r} is not a valid URL ({error})") from error


def _with_plain_host(url: URL) -> URL:
    if url.scheme not in ("http", "https") or not url.host:
        raise BadUrlError(f"{str(url)[:200]!r} is not an http or https URL")
    host = plain_host(url.raw_host or "")
    return url if host == url.raw_host else url.with_host(host)


@functools.lru_cache(1024)  # lists contain millions of URLs on a few hosts
def plain_host(host: str) -> str:
    """Returns the canonical spelling of a host.

    Args:
        host: A name or an address, without brackets and port.

    Raises:
        BadUrlError: The host is neither an address nor a valid name.
    """
    text = unquote_to_bytes(host.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")
    text = unicodedata.normalize("NFKC", text).translate(_DOTS).lower()
    if ":" in text:
        return _plain_ipv6(text)
    text = text.removesuffix(".")  # "a.org." is the same host, with the root of the DNS
    if _ends_in_a_number(text):
        return _plain_ipv4(text)
    if not text.isascii():
        text = _to_ascii(text)
    if not _NAME.fullmatch(text):
        raise BadUrlError(f"{host[:80]!r} is not a valid host name")
    return text


def _plain_ipv6(text: str) -> str:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError as error:
        raise BadUrlError(f"{text[:80]!r} is not an IPv6 address ({error})") from error
    if mapped := address.ipv4_mapped:
        # Hexadecimal, as WHATWG URL serializes hosts; Python writes ::ffff:1.2.3.4 from 3.13 on.
        return "::ffff:{:x}:{:x}".format(*divmod(int(mapped), 1 << 16))
    return str(address).partition("%")[0]  # only link-local addresses need a zone (fe80::1%eth0)


def _ends_in_a_number(host: str) -> bool:
    """Returns whether a resolver may take the host for an IPv4 address."""
    last = host.rpartition(".")[2]
    return last.isdecimal() or bool(re.fullmatch(r"0x[0-9a-f]*", last))


def _plain_ipv4(text: str) -> str:
    """Parses one to four decimal, octal or hexadecimal numbers; the last fills all bytes left."""
    numbers = [_number(part) for part in text.split(".")]
    *first, last = numbers
    if len(numbers) > 4 or max(first, default=0) > 255 or last >= 256 ** (4 - len(first)):
        raise BadUrlError(f"{text[:80]!r} is not an IPv4 address")
    value = sum(number << 8 * (3 - place) for place, number in enumerate(first)) + last
    return str(ipaddress.IPv4Address(value))


def _number(part: str) -> int:
    if len(part) <= 20:  # no IPv4 number needs more digits; int() would be slow on long ones
        for form, base in _BASES:
            if match := form.fullmatch(part):
                return int(match[1] or "0", base)
    raise BadUrlError(f"{part[:80]!r} is not a part of an IPv4 address")


def _to_ascii(name: str) -> str:
    try:
        return str(URL.build(scheme="http", host=name).raw_host)
    except ValueError as error:
        raise BadUrlError(f"{name[:80]!r} is not a valid host name ({error})") from error
