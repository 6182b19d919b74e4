# SPDX-License-Identifier: BSD-3-Clause
"""From the bytes of an image file to pixels: headers, decoders, orientation and crops."""
