# SPDX-License-Identifier: BSD-3-Clause
"""The child's side of a measurement: one line of JSON per request. Standard library only."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

Values = dict[str, Any]


def arguments() -> Values:
    """Returns the arguments of `process.Peer`."""
    return json.loads(sys.argv[1])


def serve(about: Values, answer: Callable[[str], Values]) -> None:
    """Reports that this peer is ready, then answers requests until the parent closes the pipe.

    Args:
        about: Versions, sizes and set-up times for the parent.
        answer: Returns the values for a request.
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
    save_crops: Callable[[], None],
) -> None:
    """Reads `batches` for `warm_up` seconds, then answers "measure" and "quality".

    Args:
        batches: An endless iterator; each batch must be complete in memory when it is yielded.
        batch_size: Images per batch.
        warm_up: Seconds until buffers reach a steady state and tf.data has tuned itself.
        seconds: Duration of a measurement.
        version: Version of the library.
        save_crops: Crops the given boxes in the same way as `batches`, and saves them.
    """

    def answer(request: str) -> Values:
        if request == "quality":
            save_crops()
            return {}
        count, elapsed = _drain(batches, seconds)
        return {"images": count * batch_size, "seconds": elapsed}

    _drain(batches, warm_up)
    serve({"version": version}, answer)


def _drain(batches: Iterator[Any], seconds: float) -> tuple[int, float]:
    """Takes batches for at least `seconds`; returns their number and the actual time."""
    start = time.perf_counter()
    count, elapsed = 0, 0.0
    while elapsed < seconds:
        next(batches)
        count += 1
        elapsed = time.perf_counter() - start
    return count, elapsed
