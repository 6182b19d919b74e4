# SPDX-License-Identifier: BSD-3-Clause
"""A page to look through the images of a file of tags, and the folder of its thumbnails.

Its doubt says how near a tag was to being another one. With several labels per image it is the
smallest distance of a tag's score to the threshold of its class, or to 0.5 where a class has none;
with one class per image it is the lead of the best score over the second, or the best score itself
where the second is not recorded. Images with a small distance are the most doubtful. Images without
a tag, whose scores are not recorded, have no doubt.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from mlimages_jax.files.atomic import complete_file
from mlimages_jax.files.escaping import one_line
from mlimages_jax.inference.image_source import ImageSource
from mlimages_jax.inference.pages import composed
from mlimages_jax.inference.tag_files import Row
from mlimages_jax.inference.thumbnails import Thumbnails
from mlimages_jax.labels.hierarchy import Hierarchy

_THRESHOLD = 0.5  # of classes without one
_DIGITS = 4


class TagSheet:
    """The page and the folder beside it.

    Args:
        path: The page.
        hierarchy: The classes.
        limits: Minimum score of each class, float64 [C], -inf for none; None if no class has one.
        one_class: Whether every image has one class, so that its scores sum to 1.
    """

    def __init__(
        self, path: Path, hierarchy: Hierarchy, *, limits: np.ndarray | None, one_class: bool
    ):
        self._path, self._hierarchy, self._one_class = path, hierarchy, one_class
        found = np.full(len(hierarchy), -np.inf) if limits is None else limits
        self._limits = np.where(np.isfinite(found), found, _THRESHOLD)
        self._folder = path.with_name(f"{path.name}.thumbnails")

    def update(self, source: ImageSource, rows: Iterable[Row]) -> str:
        """Writes the page and the thumbnails that are missing; returns what was done.

        Args:
            source: The images.
            rows: The row of each image.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        thumbnails = Thumbnails(self._folder).update(source)
        images = [
            self._image(row, source.path(position), thumbnails[position])
            for position, row in enumerate(rows)
        ]
        data = {
            "thumbnails": quote(self._folder.name),
            "classes": self._classes(images),
            "images": images,
            "oneClass": self._one_class,
        }
        with complete_file(self._path) as unfinished:
            unfinished.write_text(composed("tag_sheet.html", data), encoding="utf-8")
        return f"{self._path.name} shows {len(images)} images"

    def _image(self, row: Row, path: Path | None, thumbnail: str) -> dict[str, Any]:
        tags = [(tag["index"], tag["score"]) for tag in row.get("tags", ())]
        return {
            "name": one_line(row["image"]),
            "thumbnail": thumbnail,
            "address": self._address(path),
            "tags": [[index, round(score, _DIGITS)] for index, score in tags],
            "doubt": self._doubt(tags),
            "error": row.get("error"),
        }

    def _doubt(self, tags: Sequence[tuple[int, float]]) -> float | None:
        if not tags:
            return None
        if self._one_class:
            second = tags[1][1] if len(tags) > 1 else 0.0
            return round(tags[0][1] - second, _DIGITS)
        return round(min(abs(score - self._limits[index]) for index, score in tags), _DIGITS)

    def _address(self, path: Path | None) -> str | None:
        """Returns the image's address from the page, so that both can be moved together."""
        if path is None:
            return None
        # Not pathlib: it would follow links, and has no relative path with "..".
        relative = os.path.relpath(os.path.abspath(path), os.path.abspath(self._path.parent))  # noqa: PTH100
        return quote(os.fsencode(relative))

    def _classes(self, images: Iterable[dict[str, Any]]) -> dict[int, list[Any]]:
        """Returns name, parent and threshold of the classes that occur and of their ancestors."""
        found = {index for image in images for index, _ in image["tags"]}
        for index in list(found):
            found.update(self._hierarchy.ancestors(index).tolist())
        return {
            index: [
                one_line(self._hierarchy.names[index]),
                int(self._hierarchy.parents[index]),
                round(float(self._limits[index]), _DIGITS),
            ]
            for index in sorted(found)
        }
