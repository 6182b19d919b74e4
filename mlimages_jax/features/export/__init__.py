# SPDX-License-Identifier: BSD-3-Clause
"""Feature export: arrays of any length on disk, complete or resumable."""
