# SPDX-License-Identifier: BSD-3-Clause
"""Images with the labels of Tencent ML-Images, or users' own in the same format."""

from .ml_images_dataset_builder import Builder, Config, build

__all__ = ["Builder", "Config", "build"]
