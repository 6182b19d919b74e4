# SPDX-License-Identifier: BSD-3-Clause
"""Saving, verifying and restoring checkpoints, and loading them as models with their classes."""

from mlimages_jax import moved

__getattr__ = moved.getattr_of(__name__)  # names of version 0.1
