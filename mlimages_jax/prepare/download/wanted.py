# SPDX-License-Identifier: BSD-3-Clause
"""An image of a list on its way: where it may be had, and how far the attempts are."""

import dataclasses
from typing import Any

from mlimages_jax.prepare.download.image_sources import ImageSource
from mlimages_jax.prepare.download.open_images_table import Photo
from mlimages_jax.prepare.download.web_urls import BadUrlError, parse_url


@dataclasses.dataclass
class Wanted:
    """An image that is to be had, and how far the attempts are.

    Attributes:
        url: of the list.
        sources: where it may lie, best first.
        photo: its row in Open Images' table.
        source: the position of the source in use.
        attempts: made of this source.
        failures: what went wrong so far, for people.
        http_status: of the last answer.
    """

    url: str
    sources: list[ImageSource]
    photo: Photo | None = None
    source: int = 0
    attempts: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)
    http_status: int | None = None

    @property
    def host(self) -> str:
        """Whom the next attempt asks; "" for what is no URL, of which the attempt will tell."""
        try:
            return parse_url(self.sources[self.source].url).host or ""
        except BadUrlError:
            return ""

    @property
    def credit(self) -> dict[str, Any]:
        """What the table says of its author, by columns of the manifest."""
        if self.photo is None:
            return {}
        return {
            "license": self.photo.license or None,
            "author": self.photo.author or None,
            "rotation": self.photo.rotation,
        }
