# SPDX-License-Identifier: BSD-3-Clause
"""ImageNet (ILSVRC2012) from its archives, or users' own images in one folder per class."""

from .imagenet_dataset_builder import Builder, Config, build

__all__ = ["Builder", "Config", "build"]
