# SPDX-License-Identifier: BSD-3-Clause
"""Processes and devices: joining a job, locking the workdir, and stopping a run."""
