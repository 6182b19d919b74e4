# SPDX-License-Identifier: BSD-3-Clause
"""The classes of Open Images: descriptions, the nested hierarchy, and the forest made from it.

In the published hierarchy a class may have several parents; here it has one. Every class keeps its
longest path to a root, so it keeps as many ancestors as any forest could give it, and all of them
if they are on one path; a dropped edge was then only a short cut.
"""

import csv
import dataclasses
import graphlib
import json
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.text_lines import check_decoded, open_text

_CLASS_ID = re.compile(r"/[a-z]+/[0-9a-z_-]+")  # of Freebase (/m/) or the Knowledge Graph (/g/)


class Edge(NamedTuple):
    """An edge of the hierarchy that the forest does not contain.

    Attributes:
        child: Id of a class.
        parent: Id of a parent of this class.
        kept: Id of the parent it has in the forest.
        implied: Whether `parent` is still one of its ancestors.
    """

    child: str
    parent: str
    kept: str
    implied: bool


@dataclasses.dataclass(frozen=True)
class Tree:
    """The content of the hierarchy file.

    Attributes:
        classes: All ids, in file order.
        top: Id of the outermost node.
        edges: (parent, child) of "Subcategory", without repetitions, in file order.
        parts: Number of entries of "Part".
    """

    classes: tuple[str, ...]
    top: str
    edges: tuple[tuple[str, str], ...]
    parts: int


def is_class_id(text: str) -> bool:
    """Returns whether a text looks like a class id, such as /m/0jbk."""
    return _CLASS_ID.fullmatch(text) is not None


def read_descriptions(path: Path) -> dict[str, str]:
    """Reads ids and names, with or without a header line.

    Raises:
        PrepareError: A row is not an id and a name, or an id has two names; the message gives path
            and line.
    """
    names: dict[str, str] = {}
    with open_text(path) as file:
        rows = csv.reader(file, strict=True)
        try:
            for row in rows:
                check_decoded("".join(row))
                if row and not (rows.line_num == 1 and row[0] == "LabelName"):
                    id_, name = _described(row)
                    if names.setdefault(id_, name) != name:
                        raise ValueError(f"{id_} already has the name {names[id_]!r}; keep one")
        except (ValueError, csv.Error) as error:
            raise PrepareError(f"{path}:{rows.line_num}: {error}") from error
    if not names:
        raise PrepareError(f"{path}: no classes; is the file complete?")
    return names


def read_tree(path: Path) -> Tree:
    """Reads the nested hierarchy.

    "Part" is a different relation than "Subcategory": a hand is not a kind of person, and an image
    of a hand need not show one. Its classes are kept, but it adds no edge.

    Raises:
        PrepareError: The file is not JSON, or a node, given by its path, has no "LabelName".
    """
    try:
        with open_text(path) as file:
            top = json.load(file)
    except (ValueError, RecursionError) as error:
        raise PrepareError(
            f"{path}: not the hierarchy as JSON ({error}); download it again"
        ) from error
    classes: dict[str, None] = {}
    edges: dict[tuple[str, str], None] = {}
    parts = 0
    for node, place, relation, parent in _nodes(top):
        id_ = node.get("LabelName") if isinstance(node, dict) else None
        if not isinstance(id_, str) or not is_class_id(id_):
            raise PrepareError(
                f'{path}: {place or "the outermost node"} has no "LabelName" such as "/m/0bl9f"; '
                "use the hierarchy as Open Images publishes it"
            )
        classes[id_] = None
        if relation == "Subcategory":
            edges[parent, id_] = None
        parts += relation == "Part"
    return Tree(tuple(classes), next(iter(classes)), tuple(edges), parts)


def to_forest(edges: Iterable[tuple[str, str]]) -> tuple[dict[str, str], list[Edge]]:
    """Keeps for every class the parent on its longest path to a root; the first named of several.

    Args:
        edges: (parent, child), without cycles.

    Returns:
        The parent of every class that has one, and the dropped edges.

    Raises:
        ValueError: There is a cycle; the message names it.
    """
    parents: dict[str, list[str]] = {}
    for parent, child in edges:
        parents.setdefault(child, []).append(parent)
    depth: dict[str, int] = {}
    kept: dict[str, str] = {}
    try:
        for class_ in graphlib.TopologicalSorter(parents).static_order():  # parents come first
            if class_ in parents:
                kept[class_] = max(parents[class_], key=depth.__getitem__)
            depth[class_] = depth[kept[class_]] + 1 if class_ in kept else 0
    except graphlib.CycleError as error:
        raise ValueError(
            f"classes are their own descendants: {' -> '.join(error.args[1])}"
        ) from error
    dropped = [
        Edge(child, parent, kept[child], parent in _ancestors(child, kept))
        for child, candidates in parents.items()
        for parent in dict.fromkeys(candidates)
        if parent != kept[child]
    ]
    return kept, dropped


def make_hierarchy(
    descriptions: dict[str, str], tree: Tree | None, more: Collection[str]
) -> tuple[Hierarchy, list[Edge]]:
    """Combines the classes of the tree, of the descriptions, and any others, in this order.

    The outermost node ("Entity") is left out unless it is described or labelled: it would be true
    of every image. A class without a description has its id as its name.

    Args:
        descriptions: Name of each id.
        tree: The hierarchy; None: all classes are roots.
        more: Ids of labels, which may be in neither.

    Returns:
        The classes, and the edges of the tree that they do not have.

    Raises:
        ValueError: There is a cycle.
    """
    in_tree, edges = (tree.classes, tree.edges) if tree else ((), ())
    if tree and tree.top not in descriptions and tree.top not in more:
        in_tree = tuple(id_ for id_ in in_tree if id_ != tree.top)
        edges = tuple(edge for edge in edges if edge[0] != tree.top)
    kept, dropped = to_forest(edges)
    ids = dict.fromkeys([*in_tree, *descriptions, *sorted(more)])
    place = {id_: i for i, id_ in enumerate(ids)}
    parents = [place[kept[id_]] if id_ in kept else -1 for id_ in ids]
    names = tuple(descriptions.get(id_, id_) for id_ in ids)
    return Hierarchy(tuple(ids), names, np.array(parents, np.int32)), dropped


def write_dropped(path: Path, dropped: Iterable[Edge], hierarchy: Hierarchy) -> None:
    """Writes the edges as a table, tab-separated: child, parent, kept parent, implied, names."""

    def name(id_: str) -> str:
        return hierarchy.names[hierarchy.index(id_)]

    lines = ["child\tparent\tkept_parent\tstill_an_ancestor\tchild_name\tparent_name\tkept_name\n"]
    for edge in dropped:
        names = "\t".join(name(id_) for id_ in edge[:3])
        implied = "yes" if edge.implied else "no"
        lines.append("\t".join([*edge[:3], implied, names]) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def _described(row: list[str]) -> tuple[str, str]:
    if len(row) != 2 or not is_class_id(row[0]):
        raise ValueError(f"{','.join(row)[:80]!r} is not a class id such as /m/0jbk and a name")
    return row[0], " ".join(row[1].split()) or row[0]


def _nodes(top: Any) -> Iterator[tuple[Any, str, str, str]]:
    """Yields every node with its path, its relation to its parent node, and the parent's id."""
    waiting = [(top, "", "", "")]
    while waiting:
        node, place, relation, parent = waiting.pop()
        yield node, place, relation, parent  # the caller raises if this is not a dict
        below = [
            (child, f"{place}.{key}[{i}]".lstrip("."), key, node["LabelName"])
            for key in ("Subcategory", "Part")
            for i, child in enumerate(node.get(key) or ())
        ]
        waiting += reversed(below)  # a stack: reversed, so that nodes come in file order


def _ancestors(class_: str, parents: dict[str, str]) -> set[str]:
    found = set()
    while class_ in parents:
        class_ = parents[class_]
        found.add(class_)
    return found
