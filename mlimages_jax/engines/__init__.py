# SPDX-License-Identifier: BSD-3-Clause
"""Does the parts of a job in worker processes, of this machine or of a Ray cluster."""
