# SPDX-License-Identifier: BSD-3-Clause
"""Finds duplicate images by the distance of their features."""
