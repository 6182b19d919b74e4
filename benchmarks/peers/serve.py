# SPDX-License-Identifier: BSD-3-Clause
"""The child's side of a measurement: one JSON line out for every line in. Standard library only."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

Values = dict[str, Any]


def arguments() -> Values:
    """What the parent passed, see `process.Peer`."""
    return json.loads(sys.argv[1])


def serve(about: Values, answer: Callable[[str], Values]) -> None:
    """Says that this peer is ready, then answers requests until the parent closes the pipe.

    Args:
      about: Versions, sizes and times of setting up, for the parent.
      answer: Request -> values.
    """
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(line.strip())), flush=True)


def serve_batches(
    batches: Iterator[Any],
    *,
    batch_size: int,
    warm_up: float,
    seconds: float,
    version: str,
    save_cuts: Callable[[], None],
) -> None:
    """Reads `batches` for `warm_up` seconds, then answers "measure" and "quality".

    Args:
      batches: Endless; whatever they are, they are complete in memory when they come.
      batch_size: Images in each.
      warm_up: So long until buffers are in balance and tf.data has tuned itself.
      seconds: How long a measurement lasts.
      version: Of the library.
      save_cuts: Cuts given boxes as `batches` does, and saves them.
    """

    def answer(request: str) -> Values:
        if request == "quality":
            save_cuts()
            return {}
        count, elapsed = _drain(batches, seconds)
        return {"images": count * batch_size, "seconds": elapsed}

    _drain(batches, warm_up)
    serve({"version": version}, answer)


def _drain(batches: Iterator[Any], seconds: float) -> tuple[int, float]:
    """Number of batches taken, and the seconds that it took: at least so many."""
    start = time.perf_counter()
    count, elapsed = 0, 0.0
    while elapsed < seconds:
        next(batches)
        count += 1
        elapsed = time.perf_counter() - start
    return count, elapsed
