# SPDX-License-Identifier: BSD-3-Clause
"""The pictures of lists, taken out of ImageNet's archives."""
