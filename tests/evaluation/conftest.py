# SPDX-License-Identifier: BSD-3-Clause
"""Evaluations share their compiled programs."""

from tests.support.shared_programs import no_curves, sharing_programs

__all__ = ["no_curves", "sharing_programs"]
