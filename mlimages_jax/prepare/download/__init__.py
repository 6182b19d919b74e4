# SPDX-License-Identifier: BSD-3-Clause
"""Downloads the images of URL lists, verifies them and records the outcome of every URL."""
