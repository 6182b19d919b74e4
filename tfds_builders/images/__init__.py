# SPDX-License-Identifier: BSD-3-Clause
"""What the builders of image sets share: rows and image files in, a TFDS data set out."""
