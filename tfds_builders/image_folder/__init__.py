# SPDX-License-Identifier: BSD-3-Clause
"""People's own images in one folder a class, with or without folders of splits."""

from .build import build

__all__ = ["build"]
