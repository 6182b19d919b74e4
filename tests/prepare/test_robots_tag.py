# SPDX-License-Identifier: BSD-3-Clause
import pytest

from mlimages_jax.prepare.download.robots_tag import names_of, refusal

NAMES = names_of("My-Project/1.0 (me@example.org)")


@pytest.mark.parametrize(
    "headers",
    [["noai"], ["noimageai"], ["noindex"], ["noimageindex"], ["none"], ["NoAI"], [" noai "],
     ["nofollow, noai"], ["nofollow,noimageai,noarchive"], ["all", "noai"], ["img2dataset: noai"],
     ["IMG2dataset : nofollow, NOAI"], ["my-project: noindex"], ["*: noai"], ["noai; nofollow"],
     ["noai noimageai"], ["googlebot: noindex", "noai"], ["googlebot: all, img2dataset: noai"],
     ["max-image-preview: none, noai"], ["unavailable_after: 25 Jun 2010 15:00:00 PST, noai"],
     ["unavailable_after: Wed, 03 Dec 2025 13:09:53 GMT, noindex"], ["noai, googlebot: all"]],
)  # fmt: skip
def test_words_that_keep_an_image_out(headers):
    assert refusal(headers, names=NAMES) in {"noai", "noimageai", "noindex", "noimageindex", "none"}


@pytest.mark.parametrize(
    "headers",
    [[], [""], ["all"], ["nofollow"], ["noarchive, nosnippet"], ["googlebot: noindex"],
     ["googlebot: nofollow, noindex"], ["my-project2: noai"], ["max-image-preview: none"],
     ["max-image-preview:none"], ["noaim"], ["x-noai"], ["unavailable_after: none"], [":"], [",;,"],
     ["\udcff\udcfe: nofollow"], ["img2dataset:"]],
)  # fmt: skip
def test_words_that_do_not(headers):
    assert refusal(headers, names=NAMES) is None


def test_who_we_are():
    assert names_of("mlimages_jax/0.1.0") == {"mlimages_jax", "img2dataset", "*"}
    assert names_of("  ") == {"img2dataset", "*"}
