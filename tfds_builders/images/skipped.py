# SPDX-License-Identifier: BSD-3-Clause
"""Images that a data set leaves out: their list, and the limit on their number."""

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from mlimages_jax.files.escaping import tsv_row
from mlimages_jax.files.object_folder import ObjectFolder

MAX_SKIPPED = 0.01  # default fraction of a split's images that may be unusable
A_FEW = 5  # with the default fraction, any split may skip this many images


class Skipped(NamedTuple):
    """An image without a record, and the reason.

    Attributes:
        split: Split of its row.
        name: Name in the label list.
        reason: missing, or the reason of a `mlimages_jax.data.images.decode.BadImage`.
        message: Explanation for the user.
    """

    split: str
    name: str
    reason: str
    message: str


def as_table(skipped: Iterable[Skipped]) -> str:
    """Returns the images as tab-separated columns with a header line."""
    lines = [tsv_row(Skipped._fields)]
    for image in skipped:
        lines.append(tsv_row(image._replace(message=" ".join(image.message.split()))))
    return "".join(lines)


def allowed(num_rows: int, max_skipped: float) -> float:
    """Returns how many images of a split may be unusable: a fraction, but at least `A_FEW`.

    The minimum applies to the default fraction only: 0 allows none, and 0.1 two of twenty.
    """
    allowance = max_skipped * num_rows
    # Whoever gives a fraction means it; the default must not refuse a set of 50 images for one.
    return max(allowance, A_FEW) if max_skipped == MAX_SKIPPED else allowance


def check_skipped(
    skipped: Sequence[Skipped],
    num_rows: Mapping[str, int],
    *,
    max_skipped: float,
    folder: ObjectFolder,
    file: str,
) -> None:
    """Refuses a set if too many images of a split are unusable, and writes a list of them.

    Args:
        skipped: The unusable images of all splits.
        num_rows: Length of each split's label list.
        max_skipped: Fraction that may be unusable, see `allowed`; at least one image of each split
            must be usable.
        folder: Where to write the list.
        file: Its name in there.

    Raises:
        ValueError: Too many images are unusable; the message counts them by split and reason.
    """
    bad = {split: [one for one in skipped if one.split == split] for split in num_rows}
    if all(
        len(bad[split]) <= allowed(rows, max_skipped) and len(bad[split]) < rows
        for split, rows in num_rows.items()
    ):
        return
    folder.write(file, as_table(skipped).encode())
    counts = "; ".join(
        f"split {split}: {len(unusable):,} of {num_rows[split]:,} images are unusable"
        + _reasons(unusable)
        for split, unusable in bad.items()
    )
    few = f" ({A_FEW} if that is more)" if max_skipped == MAX_SKIPPED else ""
    raise ValueError(
        f"{counts}. That is more than --max-skipped={max_skipped:g}{few} allows; at least one image"
        f" of each split must be usable. {folder.path(file)} lists them all: get them again, drop"
        " their rows, or raise --max-skipped"
    )


def _reasons(skipped: Sequence[Skipped]) -> str:
    reasons = collections.Counter(image.reason for image in skipped).most_common()
    counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
    return f" ({counts})" if counts else ""
