# SPDX-License-Identifier: BSD-3-Clause
"""Metrics on the host, with NumPy only: sums that are updated batch by batch."""

from mlimages_jax import moved

__getattr__ = moved.getattr_of(__name__)  # names of version 0.1
