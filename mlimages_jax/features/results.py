# SPDX-License-Identifier: BSD-3-Clause
"""How results are shown and kept: a table of numbers, and a JSON file."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlimages_jax.features import FeaturesError
from mlimages_jax.features.export.exported import Exported
from mlimages_jax.files.atomic import complete_file

_OPTIONS = ("k", "C")
_MEASURES = ("top1", "top5", "mAP", "mAP_error_bound", "precision@5", "recall@5", "f1@5")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The main numbers of every row, below their names.

    Args:
        rows: at least one, with the same names.
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
    """What was used of an export, as JSON values."""
    kept = ("checkpoint", "model", "view", "dtype")
    return {
        "folder": str(images.folder),
        "images": len(images),
        "unreadable": images.without,
        **{name: images.metadata[name] for name in kept if name in images.metadata},
    }


def check_place(path: Path | None) -> None:
    """Fails now and not at the end of the work.

    Raises:
        FeaturesError: there is no folder for the file.
    """
    if path is not None and not path.absolute().parent.is_dir():
        raise FeaturesError(f"{path}: there is no such folder; make it first")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON object; what is not finite becomes null, as JSON has neither nan nor inf."""
    with complete_file(path) as unfinished:
        unfinished.write_text(json.dumps(_finite(values), indent=1) + "\n", "utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
