# SPDX-License-Identifier: BSD-3-Clause
"""Processes and devices: who takes part, who owns the workdir, how a run is stopped."""
