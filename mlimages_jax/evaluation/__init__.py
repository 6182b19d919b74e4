# SPDX-License-Identifier: BSD-3-Clause
"""Evaluates a network on a data set, reports the metrics, and has the published results."""
