# SPDX-License-Identifier: BSD-3-Clause
"""Evaluation of a network on a data set, its report, and the published results."""
