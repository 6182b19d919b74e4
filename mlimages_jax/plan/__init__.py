# SPDX-License-Identifier: BSD-3-Clause
"""Estimates the cost of a training before you pay for it: `mlimages plan --help`."""


class PlanError(ValueError):
    """The plan is impossible: an unknown chip, or numbers that are inconsistent."""
