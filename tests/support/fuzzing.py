# SPDX-License-Identifier: BSD-3-Clause
"""How much of the long fuzzing a run does: FUZZ_PARTS=10 python -m pytest -m slow

CI does one of the ten parts.
"""

import os

PARTS = range(int(os.environ.get("FUZZ_PARTS", "1")))  # of 10, a thousand cases each
HALF_PARTS = range(2 * len(PARTS))  # of 20, five hundred cases each


def fraction(examples: int) -> int:
    """So many of the examples as this run does of the parts."""
    return examples * len(PARTS) // 10
