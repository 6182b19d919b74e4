# SPDX-License-Identifier: BSD-3-Clause
"""Reads checkpoints without the run that wrote them: the complete tree, or only the weights.

A path is a workdir, its checkpoints folder or a step folder. Of several steps it means the best one
if the training recorded it (`checkpoint.best`), else the newest, see `step_folders.resolve`.
Weights to initialise from may also be a file or a model on the Hub, see `places`.
"""

from typing import Any

import jax
from etils import epath

from mlimages_jax import moved
from mlimages_jax.checkpoints import places
from mlimages_jax.checkpoints.compatibility import check_fit
from mlimages_jax.checkpoints.saved_step import SavedStep, abstract_tree, agreed, put_on_devices
from mlimages_jax.checkpoints.step_folders import resolve
from mlimages_jax.step.state import TrainState

HEAD = "head"  # the classifier, whose shape depends on the number of classes
EMA = "averages"  # key of the EMA weights in checkpoints, as in version 0.1


def load(path: epath.PathLike) -> dict[str, Any]:
    """Loads a complete checkpoint as nested containers of arrays on this process's first device.

    Args:
        path: A workdir, a checkpoint folder or a step folder.

    Returns:
        {"step", "params", "batch_stats", "opt_state", "class_counts", "averages"}.

    Raises:
        FileNotFoundError: There is no checkpoint.
        DamagedCheckpointError: An array cannot be read or does not match its checksum.
    """
    # Not jax.devices()[0], which belongs to process 0.
    alone = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def read() -> tuple[Any, Any]:
        saved = SavedStep(resolve(path))
        abstract = abstract_tree(saved.tree, alone)
        return saved.arrays(abstract), abstract

    return put_on_devices(*agreed(read))


def config_of(path: epath.PathLike) -> dict[str, Any]:
    """Returns the JSON values saved with a checkpoint; empty if there are none.

    Raises:
        FileNotFoundError: There is no checkpoint.
        DamagedCheckpointError: A process cannot read them, or they do not match their checksum.
    """
    return agreed(lambda: SavedStep(resolve(path)).config)


@moved.renamed_keywords(averaged="ema")
def load_weights(
    path: epath.PathLike, sharding: jax.sharding.Sharding, *, ema: bool = True
) -> dict[str, Any]:
    """Loads only the parameters and running statistics.

    Args:
        path: A workdir, a checkpoint folder or a step folder.
        sharding: Sharding of every array.
        ema: Whether to prefer the EMA weights if the checkpoint has them.

    Returns:
        {"params", "batch_stats"}, nested dicts of arrays.

    Raises:
        FileNotFoundError: There is no checkpoint.
        DamagedCheckpointError: An array cannot be read or does not match its checksum.
    """

    def read() -> tuple[Any, Any]:
        saved = SavedStep(resolve(path))
        tree, prefix = _weights_in(saved.tree, ema=ema)
        abstract = abstract_tree(tree, sharding)
        return saved.arrays(abstract, prefix=prefix), abstract

    return put_on_devices(*agreed(read))


def restore_weights(path: epath.PathLike, abstract_state: TrainState) -> dict[str, Any]:
    """Loads the parameters and running statistics of another run to initialise from.

    Prefers the EMA weights if the checkpoint has them. A classifier for a different number of
    classes is skipped; all other arrays must match.

    Args:
        path: A workdir, a checkpoint folder, a step folder, a .safetensors file, or an address
            hf://user/name@revision.
        abstract_state: State that gives names, shapes, dtypes and shardings.

    Returns:
        {"params", "batch_stats"}; "params" has no "head" if the number of classes differs.

    Raises:
        FileNotFoundError: There is no checkpoint.
        DamagedCheckpointError: An array cannot be read or does not match its checksum.
        CheckpointMismatchError: Any other array differs in name, shape or dtype.
        HubError: The Hub has no such model for this user.
    """
    place = places.local(path)

    def read() -> tuple[Any, Any]:
        saved = places.opened(place)
        wanted = abstract_state.weights
        # Finetuning starts from the weights with which the other run was evaluated and used.
        tree, prefix = _weights_in(saved.tree, ema=True)
        if not _same_head(tree["params"], wanted["params"]):
            wanted, tree = _without_head(wanted), _without_head(tree)
        check_fit(tree, wanted, where=saved.folder)
        return saved.arrays(wanted, prefix=prefix), wanted

    return put_on_devices(*agreed(read))


def _weights_in(tree: dict[str, Any], *, ema: bool) -> tuple[dict[str, Any], str]:
    """Returns the weights in a saved tree and their key in it ("" at the top level)."""
    prefix = EMA if ema and tree.get(EMA) else ""
    tree = tree[prefix] if prefix else tree
    return {name: tree.get(name) or {} for name in ("params", "batch_stats")}, prefix


def _same_head(saved: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Returns False if only the number of classes differs."""
    theirs, ours = (tree.get(HEAD, {}).get("kernel") for tree in (saved, wanted))
    if theirs is None or ours is None or theirs.shape[0] != ours.shape[0]:
        return True  # not about classes: let `check_fit` report it
    return theirs.shape == ours.shape


def _without_head(weights: dict[str, Any]) -> dict[str, Any]:
    params = {name: module for name, module in weights["params"].items() if name != HEAD}
    return {**weights, "params": params}
