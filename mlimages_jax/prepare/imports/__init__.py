# SPDX-License-Identifier: BSD-3-Clause
"""Other people's data in the files that the builder reads."""
