# SPDX-License-Identifier: BSD-3-Clause
"""Saving, verifying and restoring checkpoints, and loading them as models with their classes."""
