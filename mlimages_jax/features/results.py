# SPDX-License-Identifier: BSD-3-Clause
"""Output of results: a text table and a JSON file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlimages_jax.features import FeaturesError
from mlimages_jax.features.export.exported import Exported
from mlimages_jax.files.atomic import complete_file
from mlimages_jax.files.escaping import finite

_OPTIONS = ("k", "C")
_MEASURES = ("top1", "top5", "mAP", "mAP_error_bound", "precision@5", "recall@5", "f1@5")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Formats the main metrics of every row, with a header line.

    Args:
        rows: At least one row; all have the same keys.
    """
    names = [name for name in (*_OPTIONS, *_MEASURES) if name in rows[0]]
    cells = [names] + [
        [f"{row[name]:g}" if name in _OPTIONS else f"{row[name]:.4f}" for name in names]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(map(str.rjust, line, widths)) for line in cells)
    return "\n".join(lines)


def about(images: Exported) -> dict[str, Any]:
    """Returns what was used of an export, as JSON values."""
    kept = ("checkpoint", "model", "view", "dtype")
    return {
        "folder": images.folder,
        "images": len(images),
        "unreadable": images.without,
        **{name: images.metadata[name] for name in kept if name in images.metadata},
    }


def check_place(path: Path | None) -> None:
    """Checks the output folder now, so that a long run does not fail at its end.

    Raises:
        FeaturesError: If the folder of the file does not exist.
    """
    if path is not None and not path.absolute().parent.is_dir():
        raise FeaturesError(f"{path}: its folder does not exist; create it first")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON object; nan and infinity become null, because JSON has neither."""
    with complete_file(path) as unfinished:
        unfinished.write_text(json.dumps(finite(values), indent=1) + "\n", "utf-8")
