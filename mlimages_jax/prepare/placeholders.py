# SPDX-License-Identifier: BSD-3-Clause
"""Recognises "this photo is no longer available" placeholders by content or by URL.

Placeholders missing from this table are found by repetition: the same bytes under many URLs, see
`download`.
"""

import hashlib

from yarl import URL

# MD5 sums of files that many users who fetched ImageNet's URLs received instead of the images;
# programs published independently of each other name the same four.
KNOWN = {
    "880a7a58e05d3e83797f27573bb6d35c": "Flickr's 'this photo is no longer available'",
    "596246739a83bb45e30e13437e0810d9": "a host's warning sign",
    "969e595182a947c7fdaaef4a34401760": "a host's 'forbidden' sign",
    "af5db09e39ca35d8930b4e59962e09e5": "the logo of a domain that is for sale",
}
_LARGEST = 200_000  # bytes; placeholders are small drawings
# Flickr redirects to .../photo_unavailable.png, or to a larger one with a suffix (openimages #9).
_PLACE = "photo_unavailable"


def known_content(data: bytes) -> str | None:
    """Returns what the file shows if it is a known placeholder, else None."""
    if len(data) > _LARGEST:
        return None
    return KNOWN.get(hashlib.md5(data, usedforsecurity=False).hexdigest())


def known_place(url: URL) -> bool:
    """Returns whether a redirect leads to a placeholder."""
    return _PLACE in url.name
