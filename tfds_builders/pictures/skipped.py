# SPDX-License-Identifier: BSD-3-Clause
"""Pictures that a data set leaves out: their list, and when they are too many."""

import collections
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple


class Skipped(NamedTuple):
    """A picture without a record, and why.

    Attributes:
      split: The split of its row.
      name: In the label list.
      reason: missing, or that of a `mlimages_jax.data.decode.BadPicture`.
      message: For people.
    """

    split: str
    name: str
    reason: str
    message: str


def write_list(path: Path, skipped: Iterable[Skipped]) -> None:
    """Write the pictures as tab-separated columns under a header line."""
    lines = ["\t".join(Skipped._fields)]
    for picture in skipped:
        lines.append("\t".join(" ".join(field.split()) for field in picture))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def check_share(
    skipped: Sequence[Skipped], *, split: str, num_rows: int, max_skipped: float, path: Path
) -> None:
    """Refuse a split of which too many pictures are unusable, and leave their list.

    Args:
      skipped: The unusable pictures, of this split.
      split: Its name.
      num_rows: The length of its label list.
      max_skipped: The share of `num_rows` that is allowed; but one picture has to be usable.
      path: Where the list goes.

    Raises:
      ValueError: Counts them by reason.
    """
    if len(skipped) <= max_skipped * num_rows and len(skipped) < num_rows:
        return
    write_list(path, skipped)
    reasons = collections.Counter(picture.reason for picture in skipped).most_common()
    counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
    raise ValueError(
        f"split {split}: {len(skipped):,} of {num_rows:,} pictures are unusable ({counts}), more"
        f" than max_skipped={max_skipped:g} allows. {path} lists them: get them anew, drop their"
        " rows, or raise max_skipped."
    )
