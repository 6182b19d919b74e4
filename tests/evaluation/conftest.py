# SPDX-License-Identifier: BSD-3-Clause
"""Evaluations share their compiled programs."""

from tests.support.shared_programs import sharing_programs

__all__ = ["sharing_programs"]
