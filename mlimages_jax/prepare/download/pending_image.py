# SPDX-License-Identifier: BSD-3-Clause
"""An image to download: its sources and the state of the attempts."""

import dataclasses
from typing import Any

from mlimages_jax.prepare.download.image_sources import DownloadSource
from mlimages_jax.prepare.download.open_images_table import Photo
from mlimages_jax.prepare.download.web_urls import BadUrlError, parse_url


@dataclasses.dataclass
class PendingImage:
    """An image to download, and the state of the attempts.

    Attributes:
        url: URL of the list.
        sources: Sources to try, best first.
        photo: The image's row in Open Images' table.
        source: Index of the source in use.
        attempts: Number of attempts at this source.
        failures: Error messages so far.
        http_status: Status of the last response.
    """

    url: str
    sources: list[DownloadSource]
    photo: Photo | None = None
    source: int = 0
    attempts: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)
    http_status: int | None = None

    @property
    def host(self) -> str:
        """Host of the next attempt; "" for an invalid URL, which that attempt will report."""
        try:
            return parse_url(self.sources[self.source].url).host or ""
        except BadUrlError:
            return ""

    @property
    def credit(self) -> dict[str, Any]:
        """The table's licence, author and rotation, by columns of the manifest."""
        if self.photo is None:
            return {}
        return {
            "license": self.photo.license or None,
            "author": self.photo.author or None,
            "rotation": self.photo.rotation,
        }
