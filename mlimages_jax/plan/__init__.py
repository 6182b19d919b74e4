# SPDX-License-Identifier: BSD-3-Clause
"""What a training needs, before money is spent: `mlimages plan --help`."""


class PlanError(ValueError):
    """A plan that cannot be made: a chip that is not known, numbers that do not fit together."""
