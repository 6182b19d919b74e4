# SPDX-License-Identifier: BSD-3-Clause
"""The log line of a shard: how fast the build goes, and when it will be done."""

import datetime
import time

from absl import logging


class Pace:
    """Counts images from now on.

    Args:
      total: Images that are to be read, those of shards that are there already left out.
    """

    def __init__(self, total: int):
        self._total = total
        self._done = 0
        self._start = time.monotonic()

    def log(self, name: str, images: int, bad: int) -> None:
        """Say that a shard is written, of so many images including the bad ones."""
        self._done += images
        rate = self._done / (time.monotonic() - self._start)
        left = datetime.timedelta(seconds=round((self._total - self._done) / rate))
        logging.info("%s: %d skipped, %.0f images/s, %s left", name, bad, rate, left)
