# SPDX-License-Identifier: BSD-3-Clause
"""Training, evaluation and use of ResNets on Tencent ML-Images and ImageNet.

Importing the package is cheap: it loads numpy and nothing heavier. Training lives behind
`python -m mlimages_jax.main`.
"""

from mlimages_jax.labels.hierarchy import Hierarchy

__all__ = ["Hierarchy"]
__version__ = "0.1.0"
