# SPDX-License-Identifier: BSD-3-Clause
"""Adds labels of classes that occur together, according to the predictions of a model."""
