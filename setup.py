# SPDX-License-Identifier: BSD-3-Clause
"""What pyproject.toml cannot say: the compiled part, and folders that go into the package.

The compiled part is left out, with a warning, where it cannot be built. configs/ and launch/ are at
the top of the repository, where people look for them; an installed package carries copies inside.
"""

import shutil
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

SHIPPED = ("configs", "launch")


class BuildWithFolders(build_py):
    """Copies the folders into the package; an editable install reads them from the clone."""

    def run(self) -> None:
        """Builds as ever, then copies."""
        super().run()
        if not self.editable_mode:
            for name in SHIPPED:
                target = Path(self.build_lib, "mlimages_jax", name)
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(name, target, ignore=shutil.ignore_patterns("__pycache__"))


setup(
    cmdclass={"build_py": BuildWithFolders},
    ext_modules=[
        Extension(
            "mlimages_jax.data.images._jpeg",
            ["mlimages_jax/data/images/_jpeg.c", "mlimages_jax/data/images/_jpeg_intervals.c"],
            depends=["mlimages_jax/data/images/_jpeg_intervals.h"],
            libraries=["jpeg"],
            optional=True,
        )
    ],
)
