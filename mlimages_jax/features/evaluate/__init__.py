# SPDX-License-Identifier: BSD-3-Clause
"""How good features are: nearest neighbours, linear probes, scorecards."""
