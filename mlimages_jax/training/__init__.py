# SPDX-License-Identifier: BSD-3-Clause
"""Training: the loop, what it evaluates, and how it starts."""
