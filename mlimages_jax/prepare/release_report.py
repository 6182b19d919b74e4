# SPDX-License-Identifier: BSD-3-Clause
"""What somebody has of ML-Images beside what was published, and what to do about a difference."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mlimages_jax.files.escaping import one_line
from mlimages_jax.labels import release
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.release import PublishedList

_WIDTH = 100  # characters
_FEWER = (
    "Fewer rows than published: the file was cut while it was copied (look at its last line) - get "
    "it again; or images are left out because they are gone: `prepare coverage` says which."
)
_MORE = (
    "More rows than published: lists were joined, or rows repeat - `prepare stats` counts names of "
    "one before, `prepare labels --merge` makes one row of them."
)
_DIGESTS = (
    "The release has no digests of its lists: compare these with those of somebody who has "
    "the same file. Different ones of as many rows mean other labels, another order or "
    "other line ends."
)


class Held(NamedTuple):
    """A list, or a split of a built set.

    Attributes:
        name: of the file or split.
        rows: of it, with those that a build skipped.
        sha256: of the file, in hexadecimal; "": it is no file.
    """

    name: str
    rows: int
    sha256: str = ""


def release_report(hierarchy: Hierarchy, held: Sequence[Held]) -> str:
    """Compares with the release.

    Args:
        hierarchy: the classes.
        held: lists of these classes.

    Returns:
        Lines; "" where there are not as many classes as in the release, so that it is another set.
    """
    if len(hierarchy) != release.CLASSES:
        return ""
    lines = [*_about_dictionary(hierarchy), "", *_about_lists(held)]
    return "\n".join(lines)


def _about_dictionary(hierarchy: Hierarchy) -> Iterator[str]:
    digest = release.dictionary_digest(hierarchy)
    if not release.is_published(hierarchy):
        yield f"dictionary: not as published: ids and parents have the SHA-256 {digest}, where"
        yield f"those of the release have {release.DICTIONARY}: corrections, or another version?"
        return
    yield f"dictionary: as published (SHA-256 of ids and parents {digest})"
    yield "known faults of the published dictionary; `--corrections published` mends some of them,"
    yield "for `prepare labels --close` and for the builder with --labels=closed:"
    for fault in release.known_faults(hierarchy):
        yield textwrap.fill(fault, _WIDTH, initial_indent="  - ", subsequent_indent="    ")


def _about_lists(held: Sequence[Held]) -> Iterator[str]:
    yield "published rows:"
    for published in release.LISTS:
        yield f"  {published.rows:>12,} {published.what}"
    yield f"published classes: {release.CLASSES:,} ({release.TRAINABLE:,} trainable), of which"
    yield "1,134 are in Open Images only and 10,032 in ImageNet"
    yield "rows here:"
    differences = []
    for one in held:
        nearest = _nearest(one.rows)
        if nearest is None:
            text = "a part: every published list is more than twice as long"
        else:
            differences.append(one.rows - nearest.rows)
            text = _difference(differences[-1], nearest)
        yield f"  {one.rows:>12,} {one_line(one.name)}: {text}"
        if one.sha256:
            yield f"               SHA-256 {one.sha256}"
    notes = [_FEWER] * any(d < 0 for d in differences) + [_MORE] * any(d > 0 for d in differences)
    notes += [_DIGESTS] * any(one.sha256 for one in held)
    yield from (textwrap.fill(note, _WIDTH) for note in notes)


def _nearest(rows: int) -> PublishedList | None:
    nearest = min(release.LISTS, key=lambda published: abs(published.rows - rows))
    return nearest if 2 * rows >= nearest.rows else None


def _difference(difference: int, published: PublishedList) -> str:
    if not difference:
        return f"as many as {published.what}"
    return f"{abs(difference):,} {'more' if difference > 0 else 'fewer'} than {published.what}"
