# SPDX-License-Identifier: BSD-3-Clause
"""Formats the statistics of label lists as a table."""

from collections.abc import Iterator
from typing import Any

_Line = tuple[str, float | None, str]  # name, value, remark
_MOST_TAGS = 20  # how many numbers of tags get a line of their own
_MOST_CONFIDENCES = 12
_BAR = 40  # characters


def table(numbers: dict[str, Any]) -> str:
    """Formats lines of name, value and remark.

    Args:
        numbers: The output of `ListStatistics.compute`, and `sources`, rows by name, and
            `records_not_counted`.
    """
    every = lines(numbers)
    width = max(len(name) for name, _, _ in every)
    return "\n".join(
        f"{name:<{width}} {_text(value):>14}  {remark}".rstrip() for name, value, remark in every
    )


def lines(numbers: dict[str, Any]) -> list[tuple[str, float | None, str]]:
    """Returns name, value and remark of every line; indented names belong to one above."""
    return [
        *_about_images(numbers),
        *_about_classes(numbers["classes"], numbers["images_per_class"]),
        *_about_labels(numbers["labels"], numbers["confidences"]),
        *_about_tags(numbers["tags_per_image"], numbers["images"]["total"]),
        *_about_closure(numbers["closure"], numbers["images"]["total"]),
        *_about_depth(numbers["hierarchy"], numbers["depth_of_tags"]),
    ]


def _about_images(numbers: dict[str, Any]) -> Iterator[_Line]:
    images = numbers["images"]
    yield "images", images["total"], ""
    if len(numbers["sources"]) > 1:
        for name, rows in numbers["sources"].items():
            yield f"  {name}", rows, ""
    yield "  without tags", images["without_tags"], ""
    yield "  with a repeated name", images["repeated_names"], ""
    if numbers["records_not_counted"]:
        remark = "unreadable; the command `check` finds them all"
        yield "records not counted", numbers["records_not_counted"], remark


def _about_classes(classes: dict[str, Any], images: dict[str, Any]) -> Iterator[_Line]:
    yield "classes", classes["total"], ""
    yield "  with images", classes["with_images"], ""
    yield "  trainable", classes["trainable"], f"more than {classes['trainable_above']:,} images"
    yield "images per class", None, "of all classes"
    yield "  mean", images["mean"], ""
    yield "  minimum", images["min"], ""
    for fraction, value in images["quantiles"].items():
        yield "  median" if fraction == "0.5" else f"  {float(fraction):.0%} quantile", value, ""
    yield "  maximum", images["max"], ""


def _about_labels(labels: dict[str, int], confidences: dict[str, int]) -> Iterator[_Line]:
    total = labels["total"]
    yield "labels", total, ""
    yield "  certain (1)", labels["certain"], _fraction(labels["certain"], total)
    yield "  soft (between 0 and 1)", labels["soft"], _fraction(labels["soft"], total)
    yield "  absent (0)", labels["absent"], _fraction(labels["absent"], total)
    yield "  unknown (-1)", labels["unknown"], _fraction(labels["unknown"], total)
    yield "confidences", None, "most frequent ones" if len(confidences) > _MOST_CONFIDENCES else ""
    most = sorted(confidences, key=lambda value: -confidences[value])[:_MOST_CONFIDENCES]
    for value in sorted(most, key=float):
        yield f"  {value}", confidences[value], _bar(confidences[value], total)
    if others := total - sum(confidences[value] for value in most):
        yield f"  {len(confidences) - len(most):,} others", others, _bar(others, total)


def _about_tags(tags: dict[str, Any], images: int) -> Iterator[_Line]:
    yield "tags", tags["total"], "certain and soft labels"
    yield "tags per image", None, ""
    yield "  mean", tags["mean"], ""
    yield "  median", tags["median"], ""
    yield "  maximum", tags["max"], ""
    yield "images by number of tags", None, ""
    counts = {int(number): count for number, count in tags["histogram"].items()}
    for number in range(min(counts), min(tags["max"] + 1, min(counts) + _MOST_TAGS)):
        yield f"  {number:2}", counts.get(number, 0), _bar(counts.get(number, 0), images)
    if more := sum(count for number, count in counts.items() if number >= min(counts) + _MOST_TAGS):
        yield f"  {min(counts) + _MOST_TAGS} or more", more, _bar(more, images)


def _about_closure(closure: dict[str, int], images: int) -> Iterator[_Line]:
    open_rows, lacking = closure["rows_not_closed"], closure["rows_lacking_an_ancestor"]
    yield "rows not closed over ancestors", open_rows, _fraction(open_rows, images)
    yield "  that lack a tag's ancestor", lacking, _fraction(lacking, images)
    yield "tags with an absent or weaker parent", closure["tags_without_parent"], ""
    yield "tags that closing would add", closure["tags_to_add"], ""


def _about_depth(hierarchy: dict[str, Any], tags: dict[str, Any]) -> Iterator[_Line]:
    yield "hierarchy", None, ""
    yield "  roots", hierarchy["roots"], ""
    yield "  leaves", hierarchy["leaves"], ""
    yield "  depth, maximum", hierarchy["max_depth"], "edges from the root"
    yield "  depth, mean over classes", hierarchy["mean_depth"], ""
    yield "  depth, mean over tags", tags["mean"], ""
    yield "  names shared by several classes", hierarchy["repeated_names"], ""


def _text(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}".removesuffix(".00")


def _fraction(part: int, whole: int) -> str:
    return f"{part / whole:6.1%}" if whole else ""


def _bar(part: int, whole: int) -> str:
    """Formats a fraction as a percentage and a bar."""
    return f"{part / whole:6.1%} {'#' * round(_BAR * part / whole)}".rstrip()
