# SPDX-License-Identifier: BSD-3-Clause
"""What the builders of picture sets share: rows and picture files in, a TFDS data set out."""
