# SPDX-License-Identifier: BSD-3-Clause
"""From published lists to verified images and lists on disk: `python -m mlimages_jax.prepare`.

Works on numpy, files and sockets; never imports jax.
"""


class PrepareError(Exception):
    """Something the person at the command line can mend; the message names file or URL and how."""
