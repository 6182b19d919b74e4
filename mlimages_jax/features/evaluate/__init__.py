# SPDX-License-Identifier: BSD-3-Clause
"""Evaluates features: nearest neighbours, linear probes, scorecards."""
