# SPDX-License-Identifier: BSD-3-Clause
"""Whether what a checkpoint holds fits the state that is to be restored, in words for a person."""

from typing import Any

import jax
from etils import epath

from mlimages_jax.models import architecture

MAX_LISTED = 40  # differences that an error lists


class CheckpointMismatchError(ValueError):
    """A checkpoint and the configured state differ in names, shapes or dtypes."""


def check_fit(saved: Any, wanted: Any, *, where: epath.Path) -> None:
    """Compares names, shapes and dtypes before anything is restored: Orbax takes what it finds.

    Args:
        saved: tree of what a checkpoint holds, leaves with shape and dtype.
        wanted: the same of the state to be restored.
        where: the checkpoint, for the error.

    Raises:
        CheckpointMismatchError: lists the differences, and the depths where they differ.
    """
    theirs, ours = _describe(saved), _describe(wanted)
    lines = [f"  {name}: not in the checkpoint" for name in ours.keys() - theirs.keys()]
    lines += [f"  {name}: only in the checkpoint" for name in theirs.keys() - ours.keys()]
    lines += [
        f"  {name}: checkpoint {theirs[name]}, configuration {ours[name]}"
        for name in ours.keys() & theirs.keys()
        if theirs[name] != ours[name]
    ]
    if lines:
        more = [f"  and {len(lines) - MAX_LISTED} more"] if len(lines) > MAX_LISTED else []
        raise CheckpointMismatchError(
            f"{where} does not fit the configured state{_depths(saved, wanted)}. Use the "
            "configuration it was saved with or another workdir. Differences:\n"
            + "\n".join(sorted(lines)[:MAX_LISTED] + more)
        )


def _depths(saved: Any, wanted: Any) -> str:
    """Names the depths where they differ, which a list of hundreds of leaves does not."""
    try:
        theirs, ours = (architecture.stage_sizes(tree["params"]) for tree in (saved, wanted))
    except architecture.UnknownArchitectureError:
        return ""
    if theirs == ours:
        return ""
    return f" (its stages have {theirs} blocks, the configuration's model.stage_sizes are {ours})"


def _describe(tree: Any) -> dict[str, str]:
    """'params/head/kernel' -> 'float32[2048, 1000]'."""
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in by_name(tree).items()}


def by_name(tree: Any) -> dict[str, Any]:
    """The arrays of a tree, or what stands for them: 'params/head/kernel' -> leaf."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_array)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def is_array(leaf: Any) -> bool:
    """Whether a node of a checkpoint's tree is an array, or stands for one."""
    return hasattr(leaf, "shape")
