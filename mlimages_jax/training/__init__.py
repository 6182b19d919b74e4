# SPDX-License-Identifier: BSD-3-Clause
"""Training: the loop, its evaluations, and what a run starts from."""
