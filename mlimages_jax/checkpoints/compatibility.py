# SPDX-License-Identifier: BSD-3-Clause
"""Compares a checkpoint with the state to restore and explains any mismatch to the user."""

from typing import Any

import jax
from etils import epath

from mlimages_jax.models import architecture

_SHOWN = 2  # examples of each kind of difference in an error message


class CheckpointMismatchError(ValueError):
    """A checkpoint and the configured state differ in names, shapes or dtypes."""


def check_fit(saved: Any, wanted: Any, *, where: epath.Path) -> None:
    """Checks that a checkpoint has exactly the arrays of the state to restore.

    Args:
        saved: Tree of the checkpoint; its leaves have a shape and a dtype.
        wanted: The same for the state to restore.
        where: Path of the checkpoint, for the error message.

    Raises:
        CheckpointMismatchError: Names, shapes or dtypes differ. The three lines of the message
            compare the networks, say how to proceed, and count the arrays, with examples.
    """
    # Orbax itself does not compare: it restores whatever the checkpoint contains.
    theirs, ours = _describe(saved), _describe(wanted)
    differing = (name for name in ours if theirs.get(name, ours[name]) != ours[name])
    kinds = [
        (
            "have another shape or dtype",
            [f"{n}: checkpoint {theirs[n]}, configuration {ours[n]}" for n in differing],
        ),
        ("are missing", [f"{n}: not in the checkpoint" for n in ours if n not in theirs]),
        ("are unexpected", [f"{n}: only in the checkpoint" for n in theirs if n not in ours]),
    ]
    counts = [f"{len(lines):,} {kind}" for kind, lines in kinds if lines]
    if counts:
        examples = [line for _, lines in kinds for line in sorted(lines, key=_first)[:_SHOWN]]
        raise CheckpointMismatchError(
            f"{where} does not fit the configured state{_networks(saved, wanted)}.\n"
            "Use the configuration it was saved with, or another workdir; to start from it with "
            "init_from, leave the network open: --config.model=init_from.\n"
            f"Of {len(ours):,} arrays {', '.join(counts)}; such as {'; '.join(examples)}"
        )


def _first(line: str) -> tuple[bool, str]:
    """Sort key: parameters before the statistics and optimizer slots derived from them."""
    return not line.startswith("params/"), line


def _networks(saved: Any, wanted: Any) -> str:
    """Describes how two networks differ, which is hard to see from hundreds of leaves."""
    trees = [tree.get("params", {}) for tree in (saved, wanted)]
    try:
        theirs, ours = (architecture.body_of(params) for params in trees)
    except architecture.UnknownArchitectureError:
        return ""
    lines = [
        f"{words.format(theirs[name])}, the configuration's model.{name} are {ours[name]}"
        for name, words in architecture.WORDS.items()
        if theirs[name] != ours[name]
    ]
    return f" ({'; '.join(lines)})" if lines else ""


def _describe(tree: Any) -> dict[str, str]:
    """Maps each name to dtype and shape: 'params/head/kernel' -> 'float32[2048, 1000]'."""
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in by_name(tree).items()}


def by_name(tree: Any) -> dict[str, Any]:
    """Flattens a tree of arrays (or their descriptions): 'params/head/kernel' -> leaf."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_array)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def is_array(leaf: Any) -> bool:
    """Returns whether a node of a checkpoint's tree is an array or the description of one."""
    return hasattr(leaf, "shape")
