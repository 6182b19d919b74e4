# SPDX-License-Identifier: BSD-3-Clause
"""Outputs besides the file of tags: sidecars, folders of images by tag, and a page."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from absl import logging

from mlimages_jax.files.escaping import one_line
from mlimages_jax.inference.by_tag import ByTag
from mlimages_jax.inference.image_source import ImageSource
from mlimages_jax.inference.line_index import LineIndex, keys_of
from mlimages_jax.inference.sidecars import write_sidecar
from mlimages_jax.inference.tag_files import Row
from mlimages_jax.inference.tag_sheet import TagSheet
from mlimages_jax.inference.xmp_tags import XmpError

_SHOWN = 20  # files that are left alone and named


class TagOutputs:
    """Brings sidecars, folders and a page up to date with the rows of a file.

    The first call processes every image; later calls, with --watch, only new and changed ones, and
    those that could not be read before.

    Args:
        sidecars: Whether to write sidecars.
        by_tag: The folder of images by tag, if there is one.
        sheet: The page, if there is one.
    """

    def __init__(self, *, sidecars: bool, by_tag: ByTag | None, sheet: TagSheet | None):
        self._sidecars, self._by_tag, self._sheet = sidecars, by_tag, sheet
        self._done = LineIndex([])

    def update(self, source: ImageSource, rows: Callable[[], Iterator[Row]]) -> list[str]:
        """Returns what was done, as phrases.

        Args:
            source: The images.
            rows: Returns the row of each image.
        """
        keys = keys_of(map(source.identity, range(len(source))))
        changed = self._done.places(keys) < 0
        done = []
        if self._sidecars:
            done.append(_write_sidecars(source, rows(), changed))
        if self._by_tag:
            self._by_tag.update(source, rows(), changed)
            done.append(_described(self._by_tag))
        if self._sheet:
            done.append(self._sheet.update(source, rows()))
        self._done = LineIndex(
            (key, 0) for key, row in zip(keys.tolist(), rows(), strict=True) if "error" not in row
        )
        return done


def _write_sidecars(source: ImageSource, rows: Iterator[Row], changed: np.ndarray) -> str:
    written, left_alone = 0, []
    for position, row in enumerate(rows):
        path = source.path(position) if changed[position] else None
        if path is None:
            continue
        try:
            written += write_sidecar(path, row)
        except (XmpError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            left_alone.append(f"{Path(path).name}.xmp: {reason}")
    return f"{written} sidecars written{_named(left_alone)}"


def _described(by_tag: ByTag) -> str:
    counts = f"{by_tag.placed} files by tag added, {by_tag.removed} removed"
    return f"{counts}{_named(by_tag.left_alone)}"


def _named(left_alone: list[str]) -> str:
    """Logs what was left alone; returns the count as the rest of a phrase."""
    for one in left_alone[:_SHOWN]:
        logging.warning("left alone: %s", one_line(one))
    return f", {len(left_alone)} left alone" if left_alone else ""
