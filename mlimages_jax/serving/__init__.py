# SPDX-License-Identifier: BSD-3-Clause
"""An HTTP endpoint that tags images, and its demo page: the command `mlimages serve`."""
