# SPDX-License-Identifier: BSD-3-Clause
"""Compares label lists with the published ML-Images lists and explains the differences."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mlimages_jax.files.escaping import one_line
from mlimages_jax.labels import release
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.release import PublishedList

_WIDTH = 100  # characters
_FEWER = (
    "Fewer rows than published: the file was truncated when it was copied (look at its last line) "
    "- get it again; or images were left out because they are gone: `mlimages data coverage` lists "
    "them."
)
_MORE = (
    "More rows than published: lists were joined, or rows repeat - `mlimages data stats` counts "
    "repeated names, `mlimages data labels --merge` merges their rows."
)
_DIGESTS = (
    "The release has no digests of its lists: compare these with those of another user who has "
    "the same file. If the digests differ but the numbers of rows do not, the labels, the order "
    "or the line endings differ."
)


class Held(NamedTuple):
    """A label list, or a split of a built set.

    Attributes:
        name: Name of the file or split.
        rows: Number of its rows, including those that the build skipped.
        sha256: SHA-256 of the file in hexadecimal; "" for a split.
    """

    name: str
    rows: int
    sha256: str = ""


def release_report(hierarchy: Hierarchy, held: Sequence[Held]) -> str:
    """Compares lists with the release.

    Args:
        hierarchy: The classes.
        held: Lists with these classes.

    Returns:
        Lines of text; "" if the number of classes is not the release's, so this is another set.
    """
    if len(hierarchy) != release.CLASSES:
        return ""
    lines = [*_about_classes(hierarchy), "", *_about_lists(held)]
    return "\n".join(lines)


def _about_classes(hierarchy: Hierarchy) -> Iterator[str]:
    digest = release.class_list_digest(hierarchy)
    if not release.is_published(hierarchy):
        yield f"dictionary: not as published: ids and parents have the SHA-256 {digest}, those"
        yield f"of the release {release.CLASS_LIST_DIGEST}: were corrections applied, or is it"
        yield "another version?"
        return
    yield f"dictionary: as published (SHA-256 of ids and parents {digest})"
    yield "known errors of the published dictionary; `--corrections published` fixes some of them,"
    yield "for `mlimages data labels --close` and for the builder with --labels=closed:"
    for fault in release.known_faults(hierarchy):
        yield textwrap.fill(fault, _WIDTH, initial_indent="  - ", subsequent_indent="    ")


def _about_lists(held: Sequence[Held]) -> Iterator[str]:
    yield "published rows:"
    for published in release.LISTS:
        yield f"  {published.rows:>12,} {published.what}"
    yield f"published classes: {release.CLASSES:,} ({release.TRAINABLE:,} trainable), of which"
    yield "1,134 are in Open Images only and 10,032 in ImageNet"
    yield "rows found here:"
    differences = []
    for one in held:
        nearest = _nearest(one.rows)
        if nearest is None:
            text = "a part of a list: every published list is more than twice as long"
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
    # By the number of rows, not by name: users rename and join the files.
    nearest = min(release.LISTS, key=lambda published: abs(published.rows - rows))
    return nearest if 2 * rows >= nearest.rows else None


def _difference(difference: int, published: PublishedList) -> str:
    if not difference:
        return f"as many as {published.what}"
    return f"{abs(difference):,} {'more' if difference > 0 else 'fewer'} than {published.what}"
