# SPDX-License-Identifier: BSD-3-Clause
"""Files as they are read and written: whole or not at all, on disks and in buckets."""
