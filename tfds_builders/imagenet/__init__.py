# SPDX-License-Identifier: BSD-3-Clause
"""ImageNet (ILSVRC2012) from its archives, or your own images in one folder a class."""

from .imagenet_dataset_builder import Builder, Config, build

__all__ = ["Builder", "Config", "build"]
