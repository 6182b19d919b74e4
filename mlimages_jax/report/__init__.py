# SPDX-License-Identifier: BSD-3-Clause
"""`mlimages report`: what a run or a data set is like, as one HTML file."""
