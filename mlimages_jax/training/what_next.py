# SPDX-License-Identifier: BSD-3-Clause
"""Says at the end of a training which classes are found, what there is to see, and what is next."""

import shlex
import sys
from collections.abc import Mapping, Sequence

from etils import epath

from mlimages_jax.files.counting import counted
from mlimages_jax.files.escaping import one_line
from mlimages_jax.report.tables import Row, number, read_table

_GRID, _PER_CLASS, _THRESHOLDS = "predictions.png", "per_class.tsv", "thresholds.tsv"
_FILES = {
    _GRID: "validation images: hits, misses and false alarms",
    _PER_CLASS: "how well every class is found",
    _THRESHOLDS: "the minimum probability of a tag, by class",
    "curves.png": "loss and metrics over the training",
}
_OF_EVALUATION = (_GRID, _PER_CLASS)
# Columns of per_class.tsv, with several labels per image and with one: the measure, its name, and
# the number of images with the class.
_MEASURES = (
    ("average_precision", "average precision", "positives"),
    ("top1", "top-1 accuracy", "images"),
)
_SHOWN = 10  # best classes, and worst ones
_LONGEST = 60  # characters of a name, which may have many synonyms


def tell(workdir: epath.Path, *, evaluated: bool = True, thresholds: bool = True) -> None:
    """Prints the best and worst classes of a tagger, how to use it, and what it left to look at.

    Args:
        workdir: Folder of the run.
        evaluated: Whether its weights were evaluated; else such files are of earlier ones.
        thresholds: Whether there are thresholds of its weights.
    """
    files = {
        name: meaning
        for name, meaning in _FILES.items()
        if (evaluated or name not in _OF_EVALUATION) and (thresholds or name != _THRESHOLDS)
    }
    report = {f"mlimages report {shlex.quote(str(workdir))}": "all that is there, as one page"}
    checkpoint = shlex.quote(f"--checkpoint={workdir}")
    text = "\n" + "\n\n".join([
        *(_classes(read_table(workdir / _PER_CLASS)) if evaluated else ()),
        f"Done. Tag images with\n  mlimages tag FOLDER {one_line(checkpoint)} --output=tags.csv",
        f"Look at\n{existing(workdir, files, others=report)}",
    ])  # fmt: skip
    # A finished training does not fail because a terminal cannot show the name of a class.
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def existing(
    workdir: epath.Path, files: Mapping[str, str], *, others: Mapping[str, str] | None = None
) -> str:
    """Returns a line for each file that there is: some need labels, suspects or a single process.

    Args:
        workdir: Their folder.
        files: Meanings by name.
        others: Meanings of lines that follow in any case.
    """
    found = {str(workdir / name): text for name, text in files.items() if (workdir / name).exists()}
    lines = {one_line(what): meaning for what, meaning in {**found, **(others or {})}.items()}
    width = max(map(len, lines), default=0)
    return "\n".join(f"  {what:{width}}   {meaning}" for what, meaning in lines.items())


def _classes(rows: Sequence[Row]) -> list[str]:
    """Returns lists of the best and of the worst classes; none if no class was evaluated."""
    for measure, title, images in _MEASURES:
        # The rows are sorted; classes without images have no number.
        lines = [
            f"  {value:.2f}  {_shortened(row.get('name', ''))} "
            f"({counted(int(number(row.get(images)) or 0), 'image')})"
            for row in rows
            if (value := number(row.get(measure))) is not None
        ]
        if lines:
            best, others = lines[:_SHOWN], lines[_SHOWN:]
            sections = ["\n".join([f"The best classes, by {title} in validation", *best])]
            if others:
                worst = others[: -_SHOWN - 1 : -1]
                sections.append("\n".join(["The worst classes, the very worst first", *worst]))
            return sections
    return []


def _shortened(name: str) -> str:
    name = one_line(name)
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 3].rstrip(' ,')}..."
