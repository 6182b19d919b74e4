# SPDX-License-Identifier: BSD-3-Clause
"""The images of URL lists: fetched, verified, recorded."""
