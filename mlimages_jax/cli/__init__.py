# SPDX-License-Identifier: BSD-3-Clause
"""The command `mlimages`: one grammar before everything that this package can do."""
