# SPDX-License-Identifier: BSD-3-Clause
"""Pages of tags, each one file that loads no script or style from elsewhere.

    tags.css, tags.js    what the pages share: colours, and tags along the hierarchy
    tag_sheet.html       the page of `mlimages tag --html`

A template names the shared parts as {tags.css} and {tags.js}, and its data as {data}. Scripts set
text from files and class lists as textContent only.
"""

from importlib import resources

from mlimages_jax.files.escaping import json_line

_SHARED = ("tags.css", "tags.js")


def composed(name: str, data: object) -> str:
    """Returns a page of this folder with its data, which the script finds in an element of JSON."""
    # < as \u003c, so that no name can end the element.
    return with_shared_parts(_file(name)).replace("{data}", json_line(data).replace("<", r"\u003c"))


def with_shared_parts(template: str) -> str:
    """Returns a page with the parts that pages share."""
    for name in _SHARED:
        template = template.replace(f"{{{name}}}", _file(name).rstrip("\n"))
    return template


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
