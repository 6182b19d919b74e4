# SPDX-License-Identifier: BSD-3-Clause
"""What lists and built data sets hold, in numbers and figures."""
