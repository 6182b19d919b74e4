# SPDX-License-Identifier: BSD-3-Clause
"""Images that say "this photo is no longer available", by their content or where they lie.

Whatever is not in this table is found by its repetition: one content under many URLs, see
`download`.
"""

import hashlib

from yarl import URL

# MD5 of files that many people who fetched ImageNet's URLs found in the place of the images;
# their programs, published independently of each other, name the same four.
KNOWN = {
    "880a7a58e05d3e83797f27573bb6d35c": "Flickr's 'this photo is no longer available'",
    "596246739a83bb45e30e13437e0810d9": "a host's warning sign",
    "969e595182a947c7fdaaef4a34401760": "a host's 'forbidden' sign",
    "af5db09e39ca35d8930b4e59962e09e5": "the logo of a domain that is for sale",
}
_LARGEST = 200_000  # bytes; a placeholder is a drawing
# Flickr redirects to .../photo_unavailable.png, or to a larger one with a suffix (openimages #9).
_PLACE = "photo_unavailable"


def known_content(data: bytes) -> str | None:
    """What a file shows if it is one of the known placeholders, else None."""
    if len(data) > _LARGEST:
        return None
    return KNOWN.get(hashlib.md5(data, usedforsecurity=False).hexdigest())


def known_place(url: URL) -> bool:
    """Whether a redirect leads to a placeholder."""
    return _PLACE in url.name
