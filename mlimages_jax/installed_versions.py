# SPDX-License-Identifier: BSD-3-Clause
"""Collects the versions that a bug report needs: of this package, Python and its libraries."""

import importlib.metadata
import platform

import mlimages_jax

_LIBRARIES = (
    "jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin", "flax", "optax",
    "orbax-checkpoint", "grain", "array-record", "tensorflow-datasets", "tensorflow", "etils",
    "numpy", "pillow", "simplejpeg", "pyarrow", "tyro", "ml-collections",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Returns the versions of this package, Python, the system and the installed libraries.

    Imports none of them, so it works where one of them does not. Libraries that are not installed
    are left out.
    """
    found = {
        "mlimages_jax": mlimages_jax.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def print_versions() -> None:
    """Print the versions of the package, of Python and of libraries, for a bug report.

        mlimages versions

    In Python, `mlimages_jax.versions()` returns the same.
    """
    for name, version in versions().items():
        print(f"{name:20} {version}")
