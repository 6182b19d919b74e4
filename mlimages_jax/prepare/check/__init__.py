# SPDX-License-Identifier: BSD-3-Clause
"""Reads a built data set back and verifies it."""
