# SPDX-License-Identifier: BSD-3-Clause
"""Reading and writing files: atomically, safely named, on disks and on object storage."""
