# SPDX-License-Identifier: BSD-3-Clause
"""Extracts the images of lists from ImageNet's archives."""
