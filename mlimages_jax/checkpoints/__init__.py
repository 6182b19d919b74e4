# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints: saved, checked, restored, and read as a model with its classes."""
