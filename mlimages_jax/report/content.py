# SPDX-License-Identifier: BSD-3-Clause
"""The content of a page, free of HTML: sections with tables, charts and images."""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class ReportError(ValueError):
    """There is nothing to report on, or the page cannot be made; the message says what to do."""


class Bar(NamedTuple):
    """A number in a table that is drawn as a bar too.

    Attributes:
        fraction: Length of the bar, from 0 to 1.
        text: The number.
    """

    fraction: float
    text: str


Cell = str | int | float | Bar | None


class Table(NamedTuple):
    """A table.

    Attributes:
        caption: What it shows.
        columns: Column names.
        rows: Cells; None is undefined.
        is_folded: Whether only the caption is seen until it is opened, or printed.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    is_folded: bool = False


class Chart(NamedTuple):
    """A chart.

    Attributes:
        title: What it shows.
        spec: Vega-Lite, as JSON values. Data named "classes" are the rows of the class tree.
        description: The same in words, for those who do not see it.
        table: Its numbers, if they are few enough to be read.
    """

    title: str
    spec: Mapping[str, Any]
    description: str
    table: Table | None = None


class Tag(NamedTuple):
    """A class at an image.

    Attributes:
        kind: "hit", "false alarm", "miss", or "label" where nothing is predicted.
        name: Name of the class.
        score: Probability; None without a prediction.
    """

    kind: str
    name: str
    score: float | None = None


class Image(NamedTuple):
    """An image.

    Attributes:
        name: Its name in the data set.
        source: The image as a data URL.
        tags: Classes to show with it.
        classes: Indices of its classes and all their ancestors, for the class tree.
    """

    name: str
    source: str
    tags: Sequence[Tag]
    classes: Sequence[int] = ()


class Sheet(NamedTuple):
    """A drawn sheet: a PNG as a data URL, and what it shows."""

    source: str
    description: str


class TreeColumn(NamedTuple):
    """A number of every class.

    Attributes:
        name: Column name.
        values: The numbers by class; None is undefined.
        is_main: Whether it stands on the line of a class, rather than among its details.
        is_fraction: Whether all values are from 0 to 1, and are drawn as bars.
    """

    name: str
    values: Sequence[float | int | None]
    is_main: bool = False
    is_fraction: bool = False


class Tree(NamedTuple):
    """The classes, as a tree that opens in the page.

    Attributes:
        ids: Their ids.
        names: Their names.
        parents: Index of the parent of each, -1 for a root.
        columns: Their numbers.
    """

    ids: Sequence[str]
    names: Sequence[str]
    parents: Sequence[int]
    columns: Sequence[TreeColumn]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page.

    Attributes:
        key: Anchor.
        title: Heading.
        text: Sentences below it.
        missing: Says which command writes what is missing; empty if nothing is.
        tables: Tables.
        charts: Charts.
        images: Images.
        sheets: Sheets.
        tree: The class tree; at most one section has one.
    """

    key: str
    title: str
    text: str = ""
    missing: str = ""
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    images: Sequence[Image] = ()
    sheets: Sequence[Sheet] = ()
    tree: Tree | None = None


class Page(NamedTuple):
    """A page: title, a line below it, messages about what could not be read, and sections."""

    title: str
    subtitle: str
    problems: Sequence[str]
    sections: Sequence[Section]


def data_url(data: bytes, kind: str) -> str:
    """Returns an image as the value of a src attribute; `kind` is jpeg or png."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
