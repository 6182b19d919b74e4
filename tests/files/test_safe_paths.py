# SPDX-License-Identifier: BSD-3-Clause
"""Whatever an input calls a file, it stays inside its folder."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlimages_jax.files.safe_paths import (
    UnsafeNameError,
    check_name,
    first_unsafe,
    inside,
)

SAFE = [
    "a.jpg", "n1/n1_2.JPEG", "a/...", "..a", "a..", ".hidden/b", "-r", "a b/c  d", "12:30:15",
    "a:b/c", "Größe.jpg", "Screenshot\u202fPM.png", "x" * 255, "/".join(["y" * 255] * 4), "~/a",
    "\U0001f600.png", "$HOME", "%2e%2e/a", "\uff0e\uff0e/a",
]  # fmt: skip
UNSAFE = [
    "", "/", "/etc/passwd", "//a", "..", ".", "../a", "a/..", "a/../b", "a/./b", "./a", "a//b",
    "a/", "C:/a", "c:/", "C:\\a", "a\\..\\b", "\\\\host\\a", "a\0b", "a\nb", "a\n", "\n../x",
    "a\rb", "a\tb", "\x7f", "\x85", "a\x9bb", "\u2028", "a\u2029", "\u202egnp.jpg", "\u2066a",
    "\udcff", "x" * 256, "ö" * 128, "a/" + "x" * 256, "/".join(["y" * 102] * 10),
]  # fmt: skip


@pytest.mark.parametrize("name", SAFE)
def test_names_that_stay(tmp_path, name):
    check_name(name)
    assert inside(tmp_path, name) == tmp_path / name
    assert first_unsafe([b"a", name.encode(), b"b"]) is None


@pytest.mark.parametrize("name", UNSAFE)
def test_names_that_are_refused(tmp_path, name):
    with pytest.raises(UnsafeNameError) as error:
        inside(tmp_path, name)
    str(error.value).encode()  # and can be printed on one line
    assert "\n" not in str(error.value)
    with pytest.raises(UnsafeNameError):
        check_name(name)
    encoded = name.encode(errors="surrogateescape")
    if b"\n" not in encoded and "\udcff" not in name:  # lists have neither
        assert first_unsafe([b"a", encoded, b"b"]) == encoded


@given(st.lists(st.text(st.sampled_from("a./\\:C\0\x7f\x85\u2028é "), max_size=6), max_size=4))
def test_many_names_are_judged_as_each(names):
    def is_safe(name):
        try:
            check_name(name)
        except UnsafeNameError:
            return False
        return True

    expected = next((name.encode() for name in names if not is_safe(name)), None)
    assert first_unsafe([name.encode() for name in names]) == expected


@given(st.text(st.sampled_from("./a\\:é\n\0~"), max_size=12))
def test_no_name_leads_out(name):
    try:
        path = inside(Path("/images"), name)
    except UnsafeNameError:
        return
    assert os.path.normpath(path) == str(path) and str(path).startswith("/images/")


def test_links_within_may_not_lead_out(tmp_path):
    images = tmp_path / "images"
    (images / "a").mkdir(parents=True)
    (tmp_path / "images2").mkdir()
    (images / "out").symlink_to(tmp_path / "images2")
    (images / "up").symlink_to("..")
    (images / "self").symlink_to(".")
    (images / "in").symlink_to("a")
    (images / "a/out").symlink_to("/etc")
    (images / "file").symlink_to("/etc/passwd")
    for name in ("out/x", "up/x", "a/out/x", "in/out/x", "out/b/c"):
        with pytest.raises(UnsafeNameError, match=r"symbolic link that leads out of .*images"):
            inside(images, name)
    assert inside(images, "in/x") == images / "in/x"
    assert inside(images, "self/a/x") == images / "self/a/x"
    assert inside(images, "file") == images / "file"  # to be replaced or removed, not followed
    (tmp_path / "linked").symlink_to(images)
    assert inside(tmp_path / "linked", "a/x") == tmp_path / "linked/a/x"
    with pytest.raises(UnsafeNameError):
        inside(tmp_path / "linked", "out/x")
