# SPDX-License-Identifier: BSD-3-Clause
"""Imports multi-label data of other formats as label lists."""
