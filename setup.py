# SPDX-License-Identifier: BSD-3-Clause
"""The compiled part, which is left out, with a warning, where it cannot be built."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "mlimages_jax.data.images._jpeg",
            ["mlimages_jax/data/images/_jpeg.c"],
            libraries=["jpeg"],
            optional=True,
        )
    ]
)
