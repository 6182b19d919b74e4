# SPDX-License-Identifier: BSD-3-Clause
"""The options that change what is stored of an image; each combination has its own folder."""

import dataclasses
from typing import get_args

import tensorflow_datasets as tfds

from mlimages_jax.data.images.decode import Chroma, Orientation

_RESTART = "_restart"


@dataclasses.dataclass(eq=False, kw_only=True)
class Config(tfds.core.BuilderConfig):
    """The form in which images and labels are stored; each choice has its own folder.

    Attributes:
        labels: `released`: as in the list; `closed`: with all ancestors of every class.
        short_side: Larger images are shrunk to this short side; None: images keep their size.
        chroma: Subsampling of re-encoded images: `444`, or `420` for half the colour resolution,
            see `mlimages_jax.data.images.decode.stored_jpeg`.
        orientation: `exif`: images are turned upright by their EXIF data; `stored`: they are not.
        restart_markers: Whether files are rewritten, without loss, such that a crop is decoded
            without what is above and beside it, see `mlimages_jax.data.images.jpeg.sequential`.
        name: Derived from the others if empty, e.g. `closed_320`, `released_original`,
            `released_320_chroma420`, `released_320_stored`, `released_original_restart`.
    """

    name: str = ""
    labels: str = "released"
    # Pretraining's smallest crop, 70% of the area, still exceeds 224 pixels at this short side.
    short_side: int | None = 320
    chroma: Chroma = "444"
    orientation: Orientation = "exif"
    restart_markers: bool = False

    def __post_init__(self) -> None:
        if self.chroma not in get_args(Chroma):
            raise ValueError(f"chroma={self.chroma!r} is neither '444' nor '420'")
        if self.orientation not in get_args(Orientation):
            raise ValueError(f"orientation={self.orientation!r} is neither 'exif' nor 'stored'")
        if self.labels not in ("released", "closed"):
            raise ValueError(f"labels={self.labels!r} is neither 'released' nor 'closed'")
        if self.short_side is not None and self.short_side < 1:
            raise ValueError(f"short_side={self.short_side} is not a number of pixels: 1 or more")
        self.name = self.name or f"{self.labels}_{self.short_side or 'original'}"
        if self.chroma != "444" and not self.name.endswith(self.chroma):
            self.name += f"_chroma{self.chroma}"
        # The default gets no suffix: sets had these names before there was a choice.
        if self.orientation != type(self).orientation and not self.name.endswith(self.orientation):
            self.name += f"_{self.orientation}"
        if self.restart_markers and not self.name.endswith(_RESTART):
            self.name += _RESTART
