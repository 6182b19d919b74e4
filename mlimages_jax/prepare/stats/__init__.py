# SPDX-License-Identifier: BSD-3-Clause
"""Statistics of label lists and built data sets, as numbers and figures."""
