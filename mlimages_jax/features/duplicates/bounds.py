# SPDX-License-Identifier: BSD-3-Clause
"""Short vectors whose dot products are upper bounds of the features' cosine similarity.

Let V [F, d] have orthonormal columns, and let x and y be unit vectors. With p = V'x, q = V'y and
r and s the norms of the residuals x - Vp and y - Vq,

    cos = p.q + (x - Vp).(y - Vq) <= p.q + r s

by the Cauchy-Schwarz inequality. So [p, r].[q, s] is an upper bound: where it is below a threshold,
so is the cosine, and a search with vectors of d + 1 numbers finds all pairs above the threshold and
a few more. Any V is valid; the more of the features it keeps, the fewer extra pairs there are, so V
consists of the principal directions of a sample.
"""

import numpy as np

from mlimages_jax.features.export.exported import Exported

ROUNDING = 1e-4  # upper limit of the error of float32 arithmetic here
_ROWS_AT_ONCE = 4_096
_BLOCKS_OF_SAMPLE = 16


def principal_directions(images: Exported, width: int) -> np.ndarray:
    """Returns eigenvectors of the mean of x x', float32 [F, width], largest eigenvalues first.

    Args:
        images: Supplies the unit vectors x; blocks spaced evenly over the images are used.
        width: Number of directions, at most F.
    """
    # Blocks rather than single rows: a part of a Parquet export is read as a whole.
    starts = range(0, len(images), _ROWS_AT_ONCE)
    chosen = np.linspace(0, len(starts) - 1, min(len(starts), _BLOCKS_OF_SAMPLE)).astype(int)
    moments = np.zeros((images.width, images.width))
    for number in chosen.tolist():
        rows = images.unit(slice(starts[number], starts[number] + _ROWS_AT_ONCE))
        moments += rows.T @ rows
    _, vectors = np.linalg.eigh(moments)  # by ascending eigenvalue
    return vectors[:, ::-1][:, :width].astype(np.float32)


def bound_vectors(unit: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Returns [p, r] of every row, float32 [n, d + 1].

    Args:
        unit: float32 [n, F], rows of length 1 or 0.
        directions: float32 [F, d], orthonormal columns.
    """
    kept = unit @ directions
    rest = np.linalg.norm(unit - kept @ directions.T, axis=1, keepdims=True)
    return np.concatenate([kept, rest], axis=1)
