# SPDX-License-Identifier: BSD-3-Clause
"""Answers and URLs that are not as they should be, and what becomes of them."""

from tests.prepare.raw_server import answer
from tests.support import image_files

JPEG = image_files.jpeg(image_files.quadrants())
BUSY = "503 Service Unavailable"


def redirect(place: str | bytes) -> bytes:
    place = place.encode() if isinstance(place, str) else place
    return answer(b"", b"Location: " + place, status="302 Found")


def chunked(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body


def sized(length: str, *more: str) -> bytes:
    headers = "".join(f"\r\n{header}" for header in (f"Content-Length: {length}", *more))
    return f"HTTP/1.1 200 OK{headers}\r\n\r\n".encode() + JPEG


# answer -> the errors that it may become; None is no error.
ANSWERS = {
    "reason-latin-1": (answer(b"", status=b"404 Pas trouv\xe9"), {"http_404"}),
    "reason-bytes": (answer(b"", status=b"500 \xff\xfe\x80"), {"http_500"}),
    "reason-controls": (answer(b"", status=b"404 a\x1b[31m\tb"), {"http_404", "protocol"}),
    "reason-long": (answer(b"", status="404 " + "x" * 7000), {"http_404", "protocol"}),
    "reason-none": (answer(b"", status="404"), {"http_404"}),
    "status-999": (answer(b"", status="999 odd"), {"http_999"}),
    "status-20": (answer(b"", status="20 OK"), {"protocol", "http_20"}),
    "status-1000": (answer(b"", status="1000 OK"), {"protocol", "http_1000", "http_100"}),
    "status-negative": (answer(b"", status="-200 OK"), {"protocol"}),
    "header-latin-1": (answer(JPEG, b"X-Name: caf\xe9", b"Server: \xff"), {None}),
    "retry-far": (answer(b"", "Retry-After: 99999999999999999", status=BUSY), {"http_503"}),
    "retry-digits": (answer(b"", "Retry-After: " + "9" * 5000, status=BUSY), {"http_503"}),
    "retry-negative": (answer(b"", "Retry-After: -5", status=BUSY), {"http_503"}),
    "retry-word": (answer(b"", "Retry-After: soon", status=BUSY), {"http_503"}),
    "retry-nan": (answer(b"", "Retry-After: nan", status=BUSY), {"http_503"}),
    "retry-9999": (
        answer(b"", "Retry-After: Fri, 31 Dec 9999 23:59:59 -2359", status=BUSY), {"http_503"}),
    "retry-year": (
        answer(b"", "Retry-After: Fri, 31 Dec 99999 23:59:59 GMT", status=BUSY), {"http_503"}),
    "retry-0001": (
        answer(b"", "Retry-After: Mon, 01 Jan 0001 00:00:00 GMT", status=BUSY), {"http_503"}),
    "retry-bytes": (answer(b"", b"Retry-After: \xff\xfe", status=BUSY), {"http_503"}),
    "length-word": (sized("many"), {"protocol"}),
    "length-negative": (sized("-1"), {"protocol"}),
    "length-two": (sized("5, 6"), {"protocol"}),
    "length-twice": (sized("5", "Content-Length: 6"), {"protocol"}),
    "length-huge": (sized("9" * 40), {"protocol", "too_many_bytes"}),
    "length-short": (sized("10"), {"protocol", "truncated", "not_an_image", "corrupt"}),
    "length-long": (sized("90000"), {"incomplete"}),
    "chunk-word": (chunked(b"zz\r\n" + JPEG), {"incomplete", "protocol"}),
    "chunk-negative": (chunked(b"-5\r\n" + JPEG), {"incomplete", "protocol"}),
    "chunk-huge": (chunked(b"f" * 40 + b"\r\n" + JPEG), {"incomplete", "protocol"}),
    "chunk-cut": (chunked(b"100000\r\n" + JPEG), {"incomplete"}),
    "encoding": (answer(JPEG, "Content-Encoding: x-own"), {None}),
    "encoding-bytes": (answer(JPEG, b"Content-Encoding: \xff"), {None}),
    "type": (answer(JPEG, b"Content-Type: \xff/\xfe; charset=\xfd"), {None}),
    "cookie": (answer(JPEG, b"Set-Cookie: \xff=;;;=\x01", "Set-Cookie: " + "=" * 5000),
               {None, "protocol"}),
    "place-bytes": (redirect(b"/cookie2\xff\xe9"), {"connection", "protocol", "incomplete"}),
    "place-utf-8": (redirect("/gr\u00fc\u00dfe"), {None}),
    "place-script": (redirect("javascript:alert(1)"), {"redirects"}),
    "place-data": (redirect("data:image/jpeg;base64,/9j/"), {"redirects"}),
    "place-none": (answer(b"", status="302 Found"), {"redirects"}),
    "place-empty": (redirect(""), {"redirects"}),
    "place-backslash": (redirect("http://a\\b/x"), {"redirects"}),
    "place-bracket": (redirect("https://[::1]8/"), {"redirects"}),
    "place-punycode": (redirect("http://xn--a.org/"), {"redirects"}),
    "place-port": (redirect("http://a:99999/"), {"redirects"}),
    "place-long": (redirect("/" + "x" * 9000), {"redirects", "protocol"}),
    "continue": (b"HTTP/1.1 100 Continue\r\n\r\n" * 50 + answer(JPEG), {None}),
    "headers-many": (answer(JPEG, *[f"X-{i}: {i}" for i in range(2000)]), {None, "protocol"}),
    "header-long": (answer(JPEG, "X: " + "x" * 100_000), {"protocol"}),
    "http-0.9": (JPEG, {"protocol"}),
    "http-7": (b"HTTP/7.9 200 OK\r\n\r\n" + JPEG, {"protocol", None}),
    "nothing": (b"", {"connection"}),
    "nul": (b"\0" * 5000, {"protocol"}),
    "switch": (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", {"http_101", "connection", "timeout"}),
    "robots": (answer(JPEG, "X-Robots-Tag: noai, noimageai"), {"robots_tag"}),
    "robots-not": (answer(JPEG, "X-Robots-Tag: nofollow"), {None}),
    "robots-bytes": (answer(JPEG, b"X-Robots-Tag: \xff\xfe: noindex"), {None, "robots_tag"}),
}  # fmt: skip
# What is sent again and again, and what else it may become.
FLOODS = {
    "continue-flood": ([b"HTTP/1.1 100 Continue\r\n\r\n" * 100], {"timeout", "protocol"}),
    "headers-endless": ([b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100], {"timeout", "protocol"}),
    "one-header": ([b"X" * 1000], {"timeout", "protocol"}),
    "chunks-empty": ([chunked(b""), b"1;x=y\r\na\r\n"], {"too_many_bytes", "incomplete"}),
    "body-loris": ([b"HTTP/1.1 200 OK\r\n\r\n", 0.1], {"timeout"}),
    "silence": ([b"", 9], {"timeout"}),
}
URLS = [
    "http://a\\b/x", "http://xn--a.org", "https://[::1]8/", "http://[::1/", "http://a:99999/",
    "http://a:-1/", "http://a:x/", "http://", "http:///x", "http:a.org/x", "http://./", "http://../x",
    "http://a..b/", "http://.a/", "http://" + "a" * 300 + ".org/", "http://a.org/" + "x" * 60_000,
    "http://*.org/", "http://1.2.3.4.5/", "http://256.256.256.256/", "http://0x7g.1/",
    "http://1.2.3.08/", "http://\u0661.1/", "http://a%00b.org/",
    "http://a%2fb.org/", "http://%/", "http://\ufffd/", "javascript:alert(1)", "file:///etc/passwd",
    "HTTP://", "//a.org/x", "http://a.org:99999999999999999999/", "http://%ff.org/", "http://\u00ad/",
    "http://user:pass@/", "http://\\\\/", "http://a b/", "http://a.org\\@127.0.0.1/",
]  # fmt: skip
