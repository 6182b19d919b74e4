# SPDX-License-Identifier: BSD-3-Clause
"""The pictures of URL lists: fetched, verified, recorded."""
