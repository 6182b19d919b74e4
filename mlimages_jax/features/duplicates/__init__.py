# SPDX-License-Identifier: BSD-3-Clause
"""Duplicate images, found by the distance of their features."""

from mlimages_jax import moved

__getattr__ = moved.getattr_of(__name__)  # names of version 0.1
