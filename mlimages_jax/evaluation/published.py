# SPDX-License-Identifier: BSD-3-Clause
"""Text tables of evaluation results, alone or next to the results published for ML-Images."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

SOURCE = "README of github.com/Tencent/tencent-ml-images (paper: arXiv:1901.01703)"
SIZES = (224, 299)  # image sizes of the published results, in pixels
METRICS = (
    "top1", "top5", "loss", "mAP", "f1@5", "hierarchical_f1", "calibration_error", "examples",
)  # fmt: skip
_ABSENT = "-"


class PublishedResult(NamedTuple):
    """A published result of a ResNet-101 on ImageNet's validation set.

    Attributes:
        checkpoint: Name of the checkpoint. Those of MSRA (He et al., 2016) and Google (Sun et
            al., 2017, arXiv:1707.02968) are quoted from the same table.
        training: Training data, with the image size in pixels where it is not 224.
        accuracies: Top-1 and top-5 accuracy in percent, with the published digits, by image size
            in pixels; sizes without a result are missing.
    """

    checkpoint: str
    training: str
    accuracies: Mapping[int, tuple[float, float]]


PUBLISHED = (
    PublishedResult("MSRA ResNet-101", "ImageNet", {224: (76.4, 92.9)}),
    PublishedResult("Google ResNet-101 ckpt1", "ImageNet at 299", {299: (77.5, 93.9)}),
    PublishedResult("ML-Images ckpt1", "ImageNet", {224: (77.8, 93.9), 299: (79.0, 94.5)}),
    PublishedResult(
        "Google ResNet-101 ckpt2", "JFT-300M, then ImageNet at 299", {299: (79.2, 94.7)}
    ),
    PublishedResult(
        "ML-Images ckpt2", "ML-Images, then ImageNet", {224: (78.8, 94.5), 299: (79.5, 94.9)}
    ),
    PublishedResult(
        "ML-Images ckpt3",
        "ML-Images, then ImageNet 224 to 299",
        {224: (78.3, 94.2), 299: (80.73, 95.5)},
    ),
    PublishedResult(
        "ML-Images ckpt4", "ML-Images, then ImageNet at 299", {224: (75.8, 92.7), 299: (79.6, 94.6)}
    ),
)


def table(
    ours: Mapping[tuple[int, str], Mapping[str, float]], *, title: str, comparable: bool
) -> str:
    """Formats the published results and, below them, ours; top-1 and top-5 in percent.

    Args:
        ours: Metrics by (image size in pixels, view), each with `top1` and `top5` in [0, 1].
        title: First line, which says what was evaluated.
        comparable: Whether ours are on ImageNet's validation set with its own labels. If not, the
            published results are omitted, and a line says so.

    Returns:
        Lines, each with a line end.

    Raises:
        ValueError: If a result has no `top1` or `top5`.
    """
    percents = {key: _percents(key, values) for key, values in ours.items()}
    blocks = [[title]]
    others = sorted(percents)
    if comparable:
        blocks.append(_beside_the_published(percents))
        others = [key for key in others if key[0] not in SIZES]
    if others:
        rows = [[f"{size} px", view, *percents[size, view]] for size, view in others]
        blocks.append(_aligned([["ours", "view", "top-1", "top-5"], *rows], left=(0, 1)))
    blocks.append(_notes({view for _, view in ours}, comparable=comparable))
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def results_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Formats evaluations in aligned columns, one per line.

    Args:
        rows: Mappings with `step`, `split`, `size`, `protocol` (the view) and any metrics.

    Returns:
        A header and one line per row, each with a line end. The metrics are those of METRICS
        that any row has; "-" marks missing values and nan.
    """
    present = [name for name in METRICS if any(name in row for row in rows)]
    keys = ["step", "split", "size", "protocol", *present]
    cells = [[_readable(key, row.get(key)) for key in keys] for row in rows]
    # In results.jsonl the view keeps the key of version 0.1.
    header = ["view" if key == "protocol" else key for key in keys]
    return "".join(f"{line}\n" for line in _aligned([header, *cells], left=(1, 3)))


def _percents(key: tuple[int, str], values: Mapping[str, float]) -> tuple[str, str]:
    """Formats top-1 and top-5 in percent with two decimals."""
    for name in ("top1", "top5"):
        if name not in values:
            raise ValueError(
                f"the result at {key[0]} px, {key[1]}, has no {name!r} but {sorted(values)}: the "
                "published results have one class per image; use results_table for others"
            )
    top1, top5 = (
        _ABSENT if _is_absent(values[name]) else f"{100 * values[name]:.2f}"
        for name in ("top1", "top5")
    )
    return top1, top5


def _beside_the_published(percents: Mapping[tuple[int, str], tuple[str, str]]) -> list[str]:
    """Returns the rows of the published results, then one row per view of ours."""
    rows = [["", ""], ["checkpoint", "trained on"]]
    for size in SIZES:
        rows[0] += [f"{size} px", ""]
        rows[1] += ["top-1", "top-5"]
    for result in PUBLISHED:
        row = [result.checkpoint, result.training]
        for size in SIZES:
            row += [_as_published(value) for value in result.accuracies.get(size, (None, None))]
        rows.append(row)
    nothing = (_ABSENT, _ABSENT)
    for view in dict.fromkeys(view for size, view in percents if size in SIZES):
        row = [f"ours, {view}", ""]
        for size in SIZES:
            row += percents.get((size, view), nothing)
        rows.append(row)
    return _aligned(rows, left=(0, 1))


def _notes(views: set[str], *, comparable: bool) -> list[str]:
    if not comparable:
        return [
            "Not ImageNet's validation set with its own labels: the published results are not",
            "comparable with these and are omitted.",
        ]
    notes = [f"Published: {SOURCE}.", "It does not say how the validation images were cropped."]
    if "ten_crop" in views:
        notes.append("ten_crop averages ten crops per image, the others use a single one.")
    return notes


def _as_published(value: float | None) -> str:
    """Formats a number with its published digits, padded so that decimal points align."""
    if value is None:
        return _ABSENT
    digits = str(value)
    return digits.ljust(digits.index(".") + 3)


def _is_absent(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _readable(name: str, value: object) -> str:
    if _is_absent(value):
        return _ABSENT
    if name == "examples":
        return f"{value:,.0f}"
    return f"{value:.4f}" if name in METRICS else str(value)


def _aligned(rows: Sequence[Sequence[str]], *, left: Collection[int]) -> list[str]:
    """Aligns columns; those whose number is in `left` to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number in left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
