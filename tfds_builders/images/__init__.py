# SPDX-License-Identifier: BSD-3-Clause
"""Shared code of the builders: turns rows of a list and image files into a TFDS data set."""
