# SPDX-License-Identifier: BSD-3-Clause
"""Processes and devices: joining a job, locking the workdir, and stopping a run."""

from mlimages_jax import moved

__getattr__ = moved.getattr_of(__name__)  # names of version 0.1
