# SPDX-License-Identifier: BSD-3-Clause
"""What a running job tells: log, metrics, progress bars and goodput."""
