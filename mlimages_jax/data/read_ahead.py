# SPDX-License-Identifier: BSD-3-Clause
"""Runs a Grain data set ahead of its use, in threads of this process or in worker processes.

Threads are the default: decoding and resizing release Python's global lock, and threads start at
once. But what Python itself does for an image (some 0.3 ms) holds that lock. So a single process
ends near 3,000 images/s on any number of cores, and its threads delay the one that feeds the
devices. Worker processes have a lock each; they start with the first batch, in seconds.
"""

import concurrent.futures
import math
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import cv2
import grain
import jax
from absl import flags

SHARED_MEMORY = Path("/dev/shm")  # where Linux keeps it; containers limit it
_IN_USE = 4  # batches on their way to the devices, beside those in the workers' buffers
# Elements in a worker's buffer. Each has a message of some 0.5 kB in a pipe, which holds 64 kB. A
# worker that is killed while it waits to write the rest of a message leaves its reader waiting too,
# for ever; so the pipe must never be full.
_MAX_BUFFERED = 64


class SharedMemoryError(RuntimeError):
    """Raised when the batches of worker processes do not fit into shared memory."""


def iterate(
    dataset: grain.MapDataset,
    *,
    num_threads: int,
    num_workers: int,
    prefetch: int,
    element_bytes: int,
) -> Iterator[Any]:
    """Yields the elements of a data set, the same in the same order for all values.

    Args:
        dataset: The data set; for worker processes, it is pickled.
        num_threads: Threads that each prepare a full element; worker processes share them.
        num_workers: Worker processes; 0: the threads are in this process.
        prefetch: Elements to keep ready, at least one per thread, or two per worker process.
        element_bytes: Size of an element.

    Raises:
        SharedMemoryError: If the elements that worker processes keep ready do not fit into shared
            memory.
        RuntimeError: A worker process was ended, for example for want of memory.
    """
    threads = math.ceil(num_threads / max(num_workers, 1))
    # Each worker has two buffers of this size: its own, and that of the thread here that reads it.
    buffers = max(2 * num_workers, 1)
    buffered = math.ceil(prefetch / buffers)
    options = grain.ReadOptions(
        num_threads=threads,
        # Grain runs no more threads than its buffer has places.
        prefetch_buffer_size=max(buffered, threads),
    )
    elements = dataset.to_iter_dataset(options)
    if not num_workers:
        _decode_in_one_thread()
        return iter(elements)
    buffered = min(max(buffered, 1), _MAX_BUFFERED)
    # One more than a buffer holds is with whoever waits for a place in it.
    _check_shared_memory((buffers * (buffered + 1) + _IN_USE) * element_bytes)
    if not flags.FLAGS.is_parsed():  # as in notebooks; Grain reads a flag before it starts workers
        flags.FLAGS.mark_as_parsed()
    # Grain gives element i to worker i modulo their number and takes one of each in turn. Small
    # arrays pass through shared memory too: messages are short then, see `_MAX_BUFFERED`.
    workers = elements.mp_prefetch(
        grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=buffered),
        worker_init_fn=_begin_worker,
    )
    return _until_closed(iter(workers))


def _first(elements: grain.DatasetIterator) -> Any:
    """Starts the workers and returns the first element; None if there is none.

    Signals often go to all processes of a job. The one that trains decides what they mean, and
    still needs batches for the step that it finishes. Processes inherit from the thread that starts
    them which signals are blocked, so workers are safe from their first instruction on.
    """
    first: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def start() -> None:
        resource_tracker.ensure_running()  # here, because starting it unblocks these signals
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            first.set_result(next(elements, None))
        except BaseException as error:  # raised where the element is taken
            first.set_exception(error)

    threading.Thread(target=start, daemon=True).start()
    return first.result()


def _until_closed(elements: grain.DatasetIterator) -> Iterator[Any]:
    """Ends the workers with this generator, where Grain would leave it to the garbage collector."""
    try:
        element = _first(elements)
        while element is not None:
            yield element
            element = next(elements, None)
    finally:
        elements.close()


def _check_shared_memory(needed: int) -> None:
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return  # another system than Linux, where shared memory has no limit of its own
    if free < needed:
        raise SharedMemoryError(
            f"the batches of the worker processes need {needed / 1e6:,.0f} MB of shared memory, "
            f"and {SHARED_MEMORY} has {free / 1e6:,.0f} MB left. Start a container with more, such "
            "as `docker run --shm-size=16g`, or set fewer workers or a smaller prefetch"
        )


def _decode_in_one_thread() -> None:
    cv2.setNumThreads(1)  # ours decode one image each; more would compete for the cores


def _begin_worker(index: int, count: int) -> None:
    """Runs in a worker process before its first element."""
    del index, count
    _decode_in_one_thread()
    jax.config.update("jax_platforms", "cpu")  # the devices belong to the process that trains
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # nobody is left to take batches, and the main thread may wait for just that
