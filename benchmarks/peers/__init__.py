# SPDX-License-Identifier: BSD-3-Clause
"""The contenders of the benchmarks, each in its own process."""
