# SPDX-License-Identifier: BSD-3-Clause
"""Runs a trained network on images from any source: outputs, tags and figures."""
