# SPDX-License-Identifier: BSD-3-Clause
"""Duplicate images, found by the distance of their features."""
