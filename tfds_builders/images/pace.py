# SPDX-License-Identifier: BSD-3-Clause
"""Logs every finished shard with the speed of the build and the remaining time."""

import datetime
import time

from absl import logging


class Pace:
    """Measures the speed from the time it is created.

    Args:
        total: Number of images to read, without those of reused shards.
    """

    def __init__(self, total: int):
        self._total = total
        self._done = 0
        self._start = time.monotonic()

    def log(self, name: str, images: int, bad: int) -> None:
        """Logs that a shard of this many images, bad ones included, is written."""
        self._done += images
        rate = self._done / (time.monotonic() - self._start)
        left = datetime.timedelta(seconds=round((self._total - self._done) / rate))
        logging.info("%s: %d skipped, %.0f images/s, %s left", name, bad, rate, left)
