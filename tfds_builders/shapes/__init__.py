# SPDX-License-Identifier: BSD-3-Clause
"""Drawn images in the format of ML-Images: 40 classes in four trees, without a download."""

from tfds_builders.shapes.files import draw
from tfds_builders.shapes.shapes_dataset_builder import Builder, Config, build

__all__ = ["Builder", "Config", "build", "draw"]
