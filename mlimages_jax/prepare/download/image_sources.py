# SPDX-License-Identifier: BSD-3-Clause
"""Lists the sources that may have the image of a URL, in the order in which they are tried."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from mlimages_jax.prepare.download.open_images_table import Photo
from mlimages_jax.prepare.storing import Expected

# thumbnail: Flickr's copy with about 300,000 pixels, a tenth of the original's bytes.
# mirror: Open Images' own bucket, which contains part of the set.
# original: as uploaded to Flickr, at the URL in Open Images' table.
# list: the URL of the list.
SourceName = Literal["thumbnail", "mirror", "original", "list"]
_MIRROR = "https://open-images-dataset.s3.amazonaws.com"


class DownloadSource(NamedTuple):
    """A URL to try, and what is known about the file there."""

    name: SourceName
    url: str
    expected: Expected


def image_sources(
    url: str, photo: Photo | None, order: Sequence[SourceName]
) -> list[DownloadSource]:
    """Returns the sources of an image, without repeated URLs.

    Args:
        url: The URL of the list.
        photo: The image's row in Open Images' table, if it has one.
        order: Sources to use, in this order; an image without a row always uses "list" alone.
    """
    if photo is None:
        return [DownloadSource("list", url, Expected())]
    unchanged = Expected(photo.num_bytes, photo.md5)
    known = {
        "thumbnail": (photo.thumbnail_url, Expected()),
        "mirror": (f"{_MIRROR}/{photo.subset}/{photo.image_id}.jpg", Expected()),
        "original": (photo.original_url, unchanged),
        "list": (url, unchanged),
    }
    sources: dict[str, DownloadSource] = {}
    for name in order:
        place, expected = known[name]
        if place:
            sources.setdefault(place, DownloadSource(name, place, expected))
    return list(sources.values())
