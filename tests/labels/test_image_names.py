# SPDX-License-Identifier: BSD-3-Clause
import os
import random

import pytest

from mlimages_jax.labels.image_names import decode_name, encode_bytes, encode_name, like_a_label
from mlimages_jax.labels.list_rows import check_row, parse_row

PLAIN = [
    "a.jpg", "n01440764/n01440764_1.JPEG", "my photo.jpg", "images\\a.jpg", "a\\x.jpg", "50%.jpg",
    "Screenshot 12:30:15.png", "#1.jpg", "'quoted'.jpg", '"a".jpg', "=1+1.jpg", "日本.jpg",
    "a\u200bb\u202e.jpg", "\N{GRINNING FACE}.jpg", "a\xa0\xa0b.jpg", "x" * 5_000, "a%20b.jpg",
    "12:30:15.png", "a\ufeff.jpg", "a\\X09.jpg",
]  # fmt: skip
ODD = {
    "my  photo.jpg": r"my \x20photo.jpg",
    "a   b.jpg": r"a \x20\x20b.jpg",
    " a.jpg": r"\x20a.jpg",
    "a.jpg ": r"a.jpg\x20",
    " ": r"\x20",
    "a\tb.jpg": r"a\x09b.jpg",
    "a\nb\r.jpg": r"a\x0ab\x0d.jpg",
    "a\u2028b\x85.jpg": r"a\xe2\x80\xa8b\xc2\x85.jpg",
    "\x1b[31m.jpg": r"\x1b[31m.jpg",
    "caf\udce9.jpg": r"caf\xe9.jpg",
    "at 12:30": r"at 12\x3a30",
    "7:1": r"7\x3a1",
    "a 7:0.5": r"a 7\x3a0.5",
    "a\\x09.jpg": r"a\x5cx09.jpg",
    "\ud800.jpg": r"\xed\xa0\x80.jpg",
    "\ufeffa.jpg": r"\xef\xbb\xbfa.jpg",
    "\\\t": r"\\x09",
    "\x7f": r"\x7f",
}


@pytest.mark.parametrize("path", PLAIN)
def test_plain_names_stay_as_they_are(path):
    assert encode_name(path) == path
    assert decode_name(path) == path


@pytest.mark.parametrize("path", ODD)
def test_odd_names_are_escaped_and_come_back(path):
    assert encode_name(path) == ODD[path]
    assert os.fsencode(decode_name(ODD[path])) == path.encode("utf-8", _handler(path))


@pytest.mark.parametrize("path", [*PLAIN, *ODD])
def test_every_name_stands_in_a_list(path):
    row = check_row(encode_name(path), [3], [0.5], num_classes=4)
    line = f"{row.name}\t3:0.5".encode()
    assert parse_row(line, 4).name == row.name


def test_formats_that_hold_any_text_keep_what_is_text():
    for path in ("my  photo.jpg", "a\tb\n.jpg", "at 12:30", " "):
        assert encode_bytes(path) == path
    assert encode_bytes("caf\udce9\t.jpg") == "caf\\xe9\t.jpg"
    assert encode_bytes("a\\x09.jpg") == r"a\x5cx09.jpg"


def test_a_file_extension_tells_a_name_from_a_label():
    for word in ("12:30", "1:0.5", "1:", "1:-1", "1:1e-3", "123456789:x", "1:.5", "1:30:15"):
        assert like_a_label(word)
    for word in ("12:30:15.png", "1:2.JPEG", "a:1", "1234567890:1", "1", "", "1:x.jp2"):
        assert not like_a_label(word)


@pytest.mark.parametrize("seed", range(3))
def test_random_names_come_back_byte_by_byte(seed):
    draw = random.Random(seed)
    pieces = [
        b" ", b"  ", b"\t", b"\n", b"\\", b"\\x", b"\\x09", b"x09", b"5c", b"12:30", b":", b"0",
        b"\xe9", b"\xed\xa0\x80", "é".encode(), "e\u0301".encode(), "\u2028".encode(), b".jpg",
        "\ufeff".encode(), b"/", b"\r", b"a", b"\x7f", b"\xc2", b"\x85", b"7:1",
    ]  # fmt: skip
    for _ in range(3_000):
        data = b"".join(draw.choices(pieces, k=draw.randrange(1, 9)))
        path = os.fsdecode(data)
        name = encode_name(path)
        assert os.fsencode(decode_name(name)) == data
        assert os.fsencode(decode_name(encode_bytes(path))) == data
        assert parse_row(name.encode() + b"\t", 1).name == name


def _handler(path: str) -> str:
    return "surrogatepass" if "\ud800" in path else "surrogateescape"
