# SPDX-License-Identifier: BSD-3-Clause
"""The command `mlimages`: one interface to everything in this package."""
