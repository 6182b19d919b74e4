# SPDX-License-Identifier: BSD-3-Clause
"""Users' own images in one folder per class, with or without folders of splits."""

from .build import build

__all__ = ["build"]
