# SPDX-License-Identifier: BSD-3-Clause
"""Feature export: an array file of any length, complete or resumable."""
