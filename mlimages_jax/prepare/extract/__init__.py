# SPDX-License-Identifier: BSD-3-Clause
"""The images of lists, taken out of ImageNet's archives."""
