# SPDX-License-Identifier: BSD-3-Clause
"""Evaluates and uses exported features: `python -m mlimages_jax.features knn|probe|duplicates`."""


class FeaturesError(Exception):
    """An error that the user can fix; the message says what is wrong and how to fix it."""
