# SPDX-License-Identifier: BSD-3-Clause
"""Transfer of batches to the devices: their size, and the cost of waiting for them.

Three tables. The first compares bytes and time of transferring a batch of ML-Images: ours (uint8
images, sparse labels) against float32 images with dense targets of all classes, as in the original.
The second runs steps of known length with and without a new batch before each: the cost of a
transfer that overlaps with the step, and of one that is waited for. Steps use one thread, so that
on two cores the host has one to itself. The third delays the host's batches by multiples of the
step's length and compares the idle time logged in metrics.jsonl with 1 - step / delay, the least
that any device can be idle; 'host waits' is what timing the iterator alone would have reported.

    python benchmarks/device_feed.py            # two minutes
    python benchmarks/device_feed.py --quick
"""

import argparse
import json
import queue
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from peers.setting import where_and_when

from mlimages_jax.data.device_batches import DeviceBatches
from mlimages_jax.distributed import sharding
from mlimages_jax.monitoring.input_wait import InputWait
from mlimages_jax.monitoring.metrics_writer import MetricsWriter
from mlimages_jax.monitoring.training_log import Progress

NUM_CLASSES, MAX_LABELS = 11_166, 32
SIDES = (64, 64)
HELD = 4  # batches that the host buffers, as the pipeline does
DELAYS = (0.0, 0.5, 0.9, 1.2, 2.0)  # in units of a step's length
HostBatch = dict[str, np.ndarray]


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--step", type=float, default=0.1, help="approximate seconds")
    parser.add_argument("--steps", type=int, default=40, help="per measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="fewer steps and rounds")
    arguments = parser.parse_args()
    if arguments.quick:
        vars(arguments).update(steps=15, rounds=3)
    return arguments


def rows(batch: int, size: int) -> tuple[HostBatch, HostBatch]:
    """Returns a batch in our format, and the same with float32 images and dense targets."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (batch, size, size, 3), np.uint8)
    labels = rng.integers(0, NUM_CLASSES, (batch, MAX_LABELS), np.int32)
    confidences = np.ones((batch, MAX_LABELS), np.float32)
    ours = {"image": image, "labels": labels, "confidences": confidences}
    targets = np.zeros((batch, NUM_CLASSES), np.float32)
    np.put_along_axis(targets, labels, confidences, 1)
    dense = {"image": image.astype(np.float32) * np.float32(2 / 255) - 1, "targets": targets}
    return ours | {"mask": np.ones(batch, bool)}, dense


def print_transfers(forms: dict[str, HostBatch], rounds: int) -> None:
    """Prints bytes and the median time of a transfer, measured in turns."""
    place = sharding.by_example(sharding.make_mesh())
    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(4 * rounds):
        for name, batch in forms.items():
            fresh = {key: value.copy() for key, value in batch.items()}
            start = time.perf_counter()
            jax.block_until_ready(jax.device_put(fresh, place))
            times[name].append(time.perf_counter() - start)
    print("| put on the device | kB per image | ms per batch | x |\n|:--|---:|---:|---:|")
    base = statistics.median(times["uint8, sparse"])
    for name, batch in forms.items():
        size = sum(value.nbytes for value in batch.values()) / len(batch["image"])
        median = statistics.median(times[name])
        print(f"| {name} | {size / 1e3:.1f} | {1e3 * median:.2f} | {median / base:.1f} |")


def make_step(seconds: float) -> Callable[[jax.Array, Any], jax.Array]:
    """Returns a step of roughly this length that runs in one thread and within its cache."""

    def step(state: jax.Array, batch: Any, *, count: int) -> jax.Array:
        total = sum(leaf.ravel()[-1].astype(jnp.float32) for leaf in batch.values())
        state = jax.lax.fori_loop(0, count, lambda _, x: jnp.tanh(x @ x * 1e-3), state)
        return state + 0 * total

    state, batch = jnp.ones(SIDES), {"image": jnp.zeros((4, 4), jnp.uint8)}
    jitted = jax.jit(step, static_argnames="count")
    count, elapsed = 100, 0.0
    while elapsed < seconds / 2:
        count = 2 * count
        jitted(state, batch, count=count).block_until_ready()
        start = time.perf_counter()
        jitted(state, batch, count=count).block_until_ready()
        elapsed = time.perf_counter() - start
    count = round(count * seconds / elapsed)
    return lambda state, batch: jitted(state, batch, count=count)


def seconds_a_step(step: Any, batches: Iterator[Any], steps: int, *, wait: bool = False) -> float:
    """Returns the mean after two warm-up steps; with `wait` each batch arrives before its step."""
    state, start = jnp.ones(SIDES), 0.0
    for number in range(steps + 2):
        if number == 2:
            jax.block_until_ready(state)
            start = time.perf_counter()
        batch = next(batches)
        if wait:
            jax.block_until_ready((state, batch))
        state = step(state, batch)
    jax.block_until_ready(state)
    return (time.perf_counter() - start) / steps


def endless(batch: HostBatch) -> Iterator[HostBatch]:
    """Yields the same rows in new memory each time, like the batches of a pipeline."""
    while True:
        yield {name: value.copy() for name, value in batch.items()}


def print_overlap(step: Any, batch: HostBatch, arguments: argparse.Namespace) -> float:
    """Prints the cost of transfers; returns the length of a step without them."""
    mesh = sharding.make_mesh()
    placed = jax.device_put(batch, sharding.by_example(mesh))
    ways: dict[str, Callable[[], float]] = {
        "no new batches": lambda: seconds_a_step(step, iter(lambda: placed, None), arguments.steps),
        "ours, transferred during steps": lambda: seconds_a_step(
            step, DeviceBatches(endless(batch), mesh), arguments.steps
        ),
        "transferred and waited for": lambda: seconds_a_step(
            step, DeviceBatches(endless(batch), mesh, ahead=1), arguments.steps, wait=True
        ),
    }
    results: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, measure in ways.items():
            results[name].append(measure())
    alone = statistics.median(results["no new batches"])
    print("\n| batches | ms per step | x |\n|:--|---:|---:|")
    for name, values in results.items():
        median = statistics.median(values)
        print(f"| {name} | {1e3 * median:.1f} | {median / alone:.2f} |")
    return alone


def delayed(batch: HostBatch, seconds: float) -> Iterator[HostBatch]:
    """Yields batches that a thread prepares, one every `seconds`, at most `HELD` ahead."""
    ready: queue.Queue[HostBatch] = queue.Queue(HELD)

    def make() -> None:
        while True:
            time.sleep(seconds)
            ready.put(batch)

    threading.Thread(target=make, daemon=True).start()
    return iter(ready.get, None)


def idle_fractions(
    step: Any, batch: HostBatch, delay: float, steps: int
) -> tuple[float, float, float]:
    """Returns the logged idle fraction, that of a timed iterator, and the seconds of a step."""
    with tempfile.TemporaryDirectory() as folder:
        writer = MetricsWriter(Path(folder), start_step=0)
        warm = 2 * HELD  # until the buffered batches are used up
        progress = Progress(writer, total_steps=warm + steps, every=warm)
        batches = DeviceBatches(delayed(batch, delay), sharding.make_mesh())
        waiting: InputWait[Any] = InputWait()
        state, start, waited = jnp.ones(SIDES), 0.0, 0.0
        scalars = {name: jnp.float32(1) for name in ("learning_rate", "gradient_norm", "images")}
        for number in range(1, warm + steps + 1):
            state = step(state, waiting.next(batches))
            loss = state[0, 0]
            waiting.dispatched(loss)
            if number == warm:
                start, waited = time.perf_counter(), batches.seconds_waited
            progress.add(
                number, {"loss": loss, **scalars}, batch_size=1, seconds_waited=waiting.seconds
            )
        elapsed, waited = time.perf_counter() - start, batches.seconds_waited - waited
        progress.flush()
        waiting.close()
        writer.close()
        lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    fractions = [json.loads(line)["training/input_wait"] for line in lines[1:]]
    return statistics.mean(fractions), waited / elapsed, elapsed / steps


def main() -> None:
    """Measures and prints the three tables."""
    arguments = parse_arguments()
    print(f"{where_and_when()}; batch {arguments.batch} at {arguments.size}\n")
    ours, dense = rows(arguments.batch, arguments.size)
    print_transfers({"uint8, sparse": ours, "float32, dense": dense}, arguments.rounds)
    step = make_step(arguments.step)
    alone = print_overlap(step, ours, arguments)
    print("\n| delay, steps | ms per step | idle, logged | at least idle | host waits |")
    print("|---:|---:|---:|---:|---:|")
    for fraction in DELAYS:
        delay = fraction * alone
        logged, host, length = idle_fractions(step, ours, delay, arguments.steps // 8 * 8)
        least = max(0.0, 1 - alone / delay) if delay else 0.0
        print(f"| {fraction} | {1e3 * length:.0f} | {logged:.0%} | {least:.0%} | {host:.0%} |")


if __name__ == "__main__":
    main()
