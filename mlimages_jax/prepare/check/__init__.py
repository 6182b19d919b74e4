# SPDX-License-Identifier: BSD-3-Clause
"""A built data set, read back and verified."""
