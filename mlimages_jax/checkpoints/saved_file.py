# SPDX-License-Identifier: BSD-3-Clause
"""A network in a .safetensors file, read by the same names as a step folder (`SavedStep`)."""

import functools
from pathlib import Path
from typing import Any

from etils import epath
from flax import traverse_util

from mlimages_jax.checkpoints import safetensors
from mlimages_jax.checkpoints.saved_step import DamagedCheckpointError
from mlimages_jax.labels.hierarchy import Hierarchy


class SavedFile:
    """The contents of a file.

    Attributes:
        folder: The file; named as in `SavedStep`.
    """

    def __init__(self, path: Path):
        self.folder = epath.Path(path)
        self._path = path

    @functools.cached_property
    def content(self) -> safetensors.WeightsFile:
        """Everything in the file.

        Raises:
            DamagedCheckpointError: It is damaged.
            FileNotFoundError: It does not exist.
        """
        try:
            return safetensors.read(self._path)
        except safetensors.WeightsFileError as error:
            raise DamagedCheckpointError(str(error)) from error

    @property
    def config(self) -> dict[str, Any]:
        """JSON values of the training; {} if they were not saved."""
        return self.content.config

    @functools.cached_property
    def tree(self) -> dict[str, Any]:
        """{"params", "batch_stats"}, nested dicts of arrays."""
        nested: dict[str, Any] = traverse_util.unflatten_dict(self.content.arrays, sep="/")
        return {"params": nested.get("params", {}), "batch_stats": nested.get("batch_stats", {})}

    @property
    def hierarchy(self) -> Hierarchy | None:
        """The classes; None if they were not saved.

        Raises:
            HierarchyError: Their text is malformed.
        """
        text = self.content.class_list
        return Hierarchy.from_text(text, where=f"{self._path} (dictionary)") if text else None

    def arrays(self, abstract: Any, *, prefix: str = "") -> Any:
        """Returns arrays on the host.

        Args:
            abstract: Tree of some or all arrays of the file.
            prefix: "", as files have the weights at the top level.
        """
        assert not prefix
        names = traverse_util.flatten_dict(abstract, sep="/")
        return traverse_util.unflatten_dict(
            {name: self.content.arrays[name] for name in names}, sep="/"
        )
