# SPDX-License-Identifier: BSD-3-Clause
"""Builds sets of users' own images in one folder per class."""

from .build import build

__all__ = ["build"]
