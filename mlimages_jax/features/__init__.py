# SPDX-License-Identifier: BSD-3-Clause
"""What exported features are good for: `mlimages features knn|probe|duplicates`."""


class FeaturesError(Exception):
    """Something the person at the command line can mend; the message names it and says how."""
