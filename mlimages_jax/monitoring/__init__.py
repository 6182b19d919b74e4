# SPDX-License-Identifier: BSD-3-Clause
"""Monitoring of running jobs: log lines, metrics, progress bars and goodput."""
