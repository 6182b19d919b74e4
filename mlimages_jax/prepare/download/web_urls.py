# SPDX-License-Identifier: BSD-3-Clause
"""A text to a URL whose host has one spelling, before any library sees it.

What a host means must not depend on who reads it: `2130706433`, `0x7f.1` and `127.0.0.1` in
full-width digits are all 127.0.0.1 to one resolver or another. Here every host becomes an
IP address in its usual spelling or a plain name that no resolver takes for one; whatever is neither
is refused. The rules for numbers are those of browsers (WHATWG URL, "host parsing").
"""

import functools
import ipaddress
import re
import unicodedata
from urllib.parse import quote_from_bytes, unquote_to_bytes

from yarl import URL

_LONGEST_URL = 8_192  # characters; common servers take no more
_IN_URLS = "%" + "!#$&'()*+,/:;=?@[]~"  # what stays as it is, escapes included
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_DOTS = str.maketrans("\u3002\uff0e\uff61", "...")
_BASES = ((re.compile(r"0x([0-9a-f]*)"), 16), (re.compile(r"0([0-7]*)"), 8),
          (re.compile(r"([1-9][0-9]*)"), 10))  # fmt: skip


class BadUrlError(ValueError):
    """A text that is no http or https URL, or one that nobody can ask for."""


def parse_url(text: str) -> URL:
    """Reads a URL; its host is a name in ASCII, or an IP address in its usual spelling.

    Raises:
        BadUrlError: says why it cannot be fetched.
    """
    if len(text) > _LONGEST_URL:
        raise BadUrlError(f"a URL of {len(text):,} characters; {_LONGEST_URL:,} at most")
    try:
        return _with_plain_host(URL(text))
    except BadUrlError:
        raise
    except Exception as error:  # whatever the library's parser says: it is none
        raise BadUrlError(f"{text[:200]!r} is no URL ({error})") from error


def join(url: URL, place: str) -> URL:
    """Where a redirect leads.

    Args:
        url: from here; of this module.
        place: the header Location, in which servers also write plain UTF-8 or Latin-1.

    Raises:
        BadUrlError: as `parse_url`.
    """
    text = quote_from_bytes(place.encode("utf-8", "surrogateescape"), safe=_IN_URLS)
    if len(text) > _LONGEST_URL:
        raise BadUrlError(f"a URL of {len(text):,} characters; {_LONGEST_URL:,} at most")
    try:
        return _with_plain_host(url.join(URL(text)))
    except BadUrlError:
        raise
    except Exception as error:
        raise BadUrlError(f"{text[:200]!r} is no URL ({error})") from error


def _with_plain_host(url: URL) -> URL:
    if url.scheme not in ("http", "https") or not url.host:
        raise BadUrlError(f"{str(url)[:200]!r} is not an http or https URL")
    host = plain_host(url.raw_host or "")
    return url if host == url.raw_host else url.with_host(host)


@functools.lru_cache(1024)  # lists have millions of URLs of few hosts
def plain_host(host: str) -> str:
    """The one spelling of a host.

    Args:
        host: without brackets and port.

    Raises:
        BadUrlError: it is neither an address nor a name.
    """
    text = unquote_to_bytes(host.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")
    text = unicodedata.normalize("NFKC", text).translate(_DOTS).lower()
    if ":" in text:
        return _plain_ipv6(text)
    text = text.removesuffix(".")
    if _ends_in_a_number(text):
        return _plain_ipv4(text)
    if not text.isascii():
        text = _to_ascii(text)
    if not _NAME.fullmatch(text):
        raise BadUrlError(f"{host[:80]!r} is not the name of a host")
    return text


def _plain_ipv6(text: str) -> str:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError as error:
        raise BadUrlError(f"{text[:80]!r} is no IPv6 address ({error})") from error
    return str(address).partition("%")[0]  # a zone, as in fe80::1%eth0, is for private ones only


def _ends_in_a_number(host: str) -> bool:
    """Whether resolvers may take a host for an IPv4 address."""
    last = host.rpartition(".")[2]
    return last.isdecimal() or bool(re.fullmatch(r"0x[0-9a-f]*", last))


def _plain_ipv4(text: str) -> str:
    """From one to four numbers, decimal, octal or hexadecimal; the last fills all bytes left."""
    numbers = [_number(part) for part in text.split(".")]
    *first, last = numbers
    if len(numbers) > 4 or max(first, default=0) > 255 or last >= 256 ** (4 - len(first)):
        raise BadUrlError(f"{text[:80]!r} is no IPv4 address")
    value = sum(number << 8 * (3 - place) for place, number in enumerate(first)) + last
    return str(ipaddress.IPv4Address(value))


def _number(part: str) -> int:
    if len(part) <= 20:  # more digits are no part of an address
        for form, base in _BASES:
            if match := form.fullmatch(part):
                return int(match[1] or "0", base)
    raise BadUrlError(f"{part[:80]!r} is no part of an IPv4 address")


def _to_ascii(name: str) -> str:
    try:
        return str(URL.build(scheme="http", host=name).raw_host)
    except ValueError as error:
        raise BadUrlError(f"{name[:80]!r} is not the name of a host ({error})") from error
