# SPDX-License-Identifier: BSD-3-Clause
"""An export of images of one colour, whose features are those of `ColourModel`."""

from pathlib import Path

import numpy as np

from mlimages_jax.features.export.exported import Exported
from mlimages_jax.inference.image_source import open_images
from mlimages_jax.serving.nearest import NearestImages
from tests.support.running_server import BROWN, png

COLOURS = {
    "blue.png": (0, 0, 255), "brown.png": BROWN, "gold.png": (255, 215, 0), "red.png": (255, 0, 0)
}  # fmt: skip


def nearest_images(folder: Path) -> NearestImages:
    """Images in folder/photos; row 0 of the export had no features."""
    (folder / "photos").mkdir()
    for name, colour in COLOURS.items():
        (folder / "photos" / name).write_bytes(png(colour))
    array = np.array([(np.nan,) * 3, *COLOURS.values()], np.float32) / 255
    exported = Exported(
        folder,
        array,
        rows=np.arange(1, len(array)),
        names=list(COLOURS),
        labels=[""] * len(COLOURS),
    )
    return NearestImages(exported, open_images(folder / "photos"))
