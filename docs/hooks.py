# SPDX-License-Identifier: BSD-3-Clause
"""Hooks of mkdocs: the reference pages, and links that leave docs/ (named in mkdocs.yml).

Reference pages are found by walking the packages, so that a module which moves takes its page with
it. Links that leave this folder work both here and where the repository is read: the files that
they name become part of the site, below repository/.
"""

import ast
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PACKAGES = ("mlimages_jax", "tfds_builders")
OUTSIDE = "repository"  # the folder of the site for files outside docs/
_LINK = re.compile(r"(?<=\]\()(?P<path>[^)#\s:]+)(?P<anchor>#[^)\s]*)?(?=\))")
_CODE = re.compile(r"^```.*?^```$|^(?: {4}|\t).*?$|`[^`\n]+`", re.DOTALL | re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the reference to the navigation."""
    pages: list[Any] = [{"Overview": "reference/index.md"}]
    pages += [{folder: f"reference/{folder}.md"} for folder in reference()]
    assert config.nav is not None
    config.nav.append({"Reference": pages})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the reference, and the files outside docs/ that pages link to."""
    for folder, modules in reference().items():
        text = "\n\n".join([f"# {folder}", *(f"::: {module}" for module in modules)])
        files.append(File.generated(config, f"reference/{folder}.md", content=text))
    files.append(File.generated(config, "reference/index.md", content=overview()))
    waiting = [file.src_uri for file in files.documentation_pages() if file.generated_by is None]
    waiting += re.findall(rf"{OUTSIDE}/\S+\.md", str(config.nav))
    seen = set(waiting)
    for uri in waiting:  # grows while it is read: linked pages have links of their own
        path = in_repository(uri)
        if uri.startswith(f"{OUTSIDE}/"):
            files.append(File.generated(config, uri, abs_src_path=str(path)))
        if path.suffix == ".md":
            found = {target for target in links(path) if target.startswith(f"{OUTSIDE}/")}
            waiting += sorted(found - seen)
            seen |= found
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    uri = page.file.src_uri
    # Generated pages hold `::: module` and site links only; their source is no file of docs/.
    if uri.startswith("reference/"):
        return markdown

    def rewritten(match: re.Match[str]) -> str:
        target = site_uri(in_repository(uri), match["path"])
        if target is None:
            return match[0]
        return os.path.relpath(target, Path(uri).parent) + (match["anchor"] or "")

    return _LINK.sub(rewritten, markdown)


def reference() -> dict[str, list[str]]:
    """Return the public modules of every package, keyed by the package that holds them."""
    found: dict[str, list[str]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            folder, module = ".".join(parts[:-1]), ".".join(parts)
            if parts[-1] == "__init__":
                found.setdefault(folder, []).insert(0, folder)
            elif not any(part.startswith("_") for part in parts):
                found.setdefault(folder, []).append(module)
    return dict(sorted(found.items()))


def overview() -> str:
    """Return a Markdown table of all packages with the first line of each docstring."""
    rows = ["# Reference", "", "Generated from the docstrings.", "", "| package | |", "|:--|:--|"]
    for folder in reference():
        tree = ast.parse((ROOT / folder.replace(".", "/") / "__init__.py").read_text("utf-8"))
        first = (ast.get_docstring(tree) or "").partition("\n")[0].replace("|", "\\|")
        rows.append(f"| [{folder}]({folder}.md) | {first} |")
    return "\n".join(rows)


def in_repository(uri: str) -> Path:
    """Return the file of the repository behind a page of the site."""
    inside, _, rest = uri.partition("/")
    return ROOT / rest if inside == OUTSIDE else DOCS / uri


def site_uri(source: Path, link: str) -> str | None:
    """Return the page of the site that a link leads to.

    Args:
        source: The Markdown file with the link.
        link: The target as written, relative to that file.

    Returns:
        A path relative to the site, or None for a link that is not to a file of the repository.
    """
    # normpath, not resolve(): a link is read as it is written, also where a folder is a symlink.
    target = Path(os.path.normpath(source.parent / link))
    if target.is_relative_to(DOCS) or not target.is_relative_to(ROOT) or not target.is_file():
        return target.relative_to(DOCS).as_posix() if target.is_relative_to(DOCS) else None
    return f"{OUTSIDE}/{target.relative_to(ROOT).as_posix()}"


def links(path: Path) -> list[str]:
    """Return the pages and files of the site that a Markdown file links to outside of code."""
    text = _CODE.sub("", path.read_text(encoding="utf-8"))
    found = [site_uri(path, match["path"]) for match in _LINK.finditer(text)]
    return [target for target in found if target is not None]
