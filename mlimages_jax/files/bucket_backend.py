# SPDX-License-Identifier: BSD-3-Clause
"""Chooses the library behind `epath` for gs://: gcsfs, also where TensorFlow is installed.

Left to itself `epath` imports TensorFlow for such paths wherever it finds it, in Orbax and TFDS
too. That costs seconds and GPU memory, and TensorFlow's file layer raises other errors.
"""

import os

_SWITCH = "EPATH_USE_TF"  # epath reads it when a path on object storage is used for the first time


def choose() -> None:
    """Chooses gcsfs for this process and its children, unless the environment has a choice."""
    os.environ.setdefault(_SWITCH, "false")
