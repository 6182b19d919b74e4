# SPDX-License-Identifier: BSD-3-Clause
"""Training, evaluation and use of ResNets on Tencent ML-Images and ImageNet.

Importing the package is cheap: it loads nothing heavier than numpy; the first use of `load` imports
jax. The command is `mlimages`, or `python -m mlimages_jax`.
"""

from typing import TYPE_CHECKING, Any

from mlimages_jax import moved
from mlimages_jax.files import bucket_backend, escaping
from mlimages_jax.labels.hierarchy import Hierarchy

if TYPE_CHECKING:
    from mlimages_jax.inference.pretrained import load
    from mlimages_jax.installed_versions import versions

__all__ = ["Hierarchy", "load", "versions"]
__version__ = "0.2.0"

bucket_backend.choose()
escaping.escape_log_lines()
moved.install()


def __getattr__(name: str) -> Any:
    """Imports `load` and `versions` on first use."""
    if name == "load":
        from mlimages_jax.inference.pretrained import load

        return load
    if name == "versions":
        from mlimages_jax.installed_versions import versions

        return versions
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
