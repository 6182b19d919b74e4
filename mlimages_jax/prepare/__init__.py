# SPDX-License-Identifier: BSD-3-Clause
"""Turns published lists into verified images and label lists: `mlimages data`.

Works on numpy arrays, files and sockets; never imports jax.
"""


class PrepareError(Exception):
    """An error the user can fix; the message names the file or URL and says how."""
