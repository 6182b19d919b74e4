# SPDX-License-Identifier: BSD-3-Clause
"""What the benchmarks compare, each in a process of its own."""
