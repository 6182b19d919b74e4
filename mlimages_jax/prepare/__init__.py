# SPDX-License-Identifier: BSD-3-Clause
"""From published lists to verified images and lists on disk: `mlimages data`.

Works on numpy, files and sockets; never imports jax.
"""


class PrepareError(Exception):
    """Something the person at the command line can mend; the message names file or URL and how."""
