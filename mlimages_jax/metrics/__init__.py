# SPDX-License-Identifier: BSD-3-Clause
"""Metrics on the host, with NumPy only: sums that are updated with every batch."""
