# SPDX-License-Identifier: BSD-3-Clause
r"""Makes the HTML file: one page that loads nothing from anywhere.

This is the one place of escaping. Jinja escapes every text that it puts into HTML, and its filter
`tojson` writes <, > and & in JSON as \u003c and so on, so that no name can end a script. Before
both, characters that reorder or hide text are replaced by what they are called. The script of the
page only ever sets `textContent`.
"""

import datetime
import functools
from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from mlimages_jax.files.escaping import one_line
from mlimages_jax.report import content
from mlimages_jax.report.content import Bar, Page, Section, Tree

_SHOWN_IMAGES = 24  # in the grid; the class tree has all


def html(page: Page) -> str:
    """Returns the page as the text of an HTML file."""
    environment = jinja2.Environment(
        autoescape=True, finalize=_visible, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters["cell"] = _cell
    environment.tests["bar"] = lambda value: isinstance(value, Bar)
    environment.tests["number"] = lambda value: isinstance(value, int | float)
    return environment.from_string(_file("page.html.jinja")).render(
        page=page,
        data=_data(page),
        style=Markup(_file("page.css")),
        script=Markup(_file("page.js")),
        library=Markup(_library()),
        shown_images=_SHOWN_IMAGES,
        made=datetime.datetime.now(tz=datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _data(page: Page) -> dict[str, Any]:
    """Returns what the script needs: specifications of charts, the class tree and its images."""
    charts = [chart.spec for section in page.sections for chart in section.charts]
    trees = [section.tree for section in page.sections if section.tree]
    tree = _tree(trees[0], page.sections) if trees else None
    return {"charts": charts, "tree": tree}


def _tree(tree: Tree, sections: Sequence[Section]) -> dict[str, Any]:
    images = [image for section in sections for image in section.images]
    above: dict[int, list[int]] = {}
    for position, image in enumerate(images):
        for i in image.classes:
            above.setdefault(i, []).append(position)
    return {
        "ids": list(map(one_line, tree.ids)),
        "names": list(map(one_line, tree.names)),
        "parents": list(tree.parents),
        "columns": [column._asdict() for column in tree.columns],
        "images": above,
    }


@functools.cache
def _library() -> str:
    """Returns the script of Vega, Vega-Lite and Vega-Embed; seconds for the first time."""
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _file(name: str) -> str:
    return resources.files(content.__package__).joinpath(name).read_text(encoding="utf-8")


def _visible(value: Any) -> Any:
    """Replaces characters that reorder or hide text; markup of our own is left as it is."""
    return one_line(value) if type(value) is str else value


def _cell(value: content.Cell) -> str:
    """Formats the value of a table's cell."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, Bar):
        return value.text
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and abs(value) >= 100 else f"{value:.4g}"
    return value
