# SPDX-License-Identifier: BSD-3-Clause
"""Exports features, evaluates them and finds near-duplicates: `mlimages features`."""


class FeaturesError(Exception):
    """An error that the user can fix; the message names the cause and says how."""
