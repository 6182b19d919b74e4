# SPDX-License-Identifier: BSD-3-Clause
"""Shared code of the builders of image sets: rows and image files in, a TFDS data set out."""
