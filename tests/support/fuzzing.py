# SPDX-License-Identifier: BSD-3-Clause
"""How much of the long fuzzing a run does: FUZZ_PARTS=10 python -m pytest -m slow -k ten_thousand

All ten parts, 10,000 cases of each kind, take about an hour on two cores; CI does one.
"""

import os

PARTS = range(int(os.environ.get("FUZZ_PARTS", "1")))  # of 10, a thousand cases each
HALF_PARTS = range(2 * len(PARTS))  # of 20, five hundred cases each
