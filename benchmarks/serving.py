# SPDX-License-Identifier: BSD-3-Clause
"""Images per second of `mlimages serve` under load, against its network alone in the same process.

The network alone runs full batches of random images, in every compiled size; its rate is that of
the best size, each by the median batch of some seconds before and after the row. The clients are
threads of a second process on the same machine, each with one connection, and send JPEGs of 500x375
pixels one by one. `full`: each client sends again as soon as it has its answer. `half`: all clients
together send at half the network's own rate. `p99 / batch` divides the 99th percentile by the
duration of a batch of the largest size. `busy` is the share of the time in which a batch ran, `in
batch` the mean number of images in one, without padding. The memory is that of the server's process
at the end, and its growth since the first answers.

    python benchmarks/serving.py                       # ResNet-50, 20 clients, a minute a row
    python benchmarks/serving.py --stages 3 4 23 3 --dtype bfloat16 --seconds 600
    python benchmarks/serving.py --quick --seconds 900 --rows full    # 100,000 requests

On a CPU, decoder, server and clients compete with the network for the same cores, which the ratio
includes.
"""

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import simplejpeg

ROW = (
    "| {:4} | {:>7} | {:>8} | {:>8} | {:>5} | {:>4} | {:>8} | {:>6} | {:>6} | {:>11} | {:>6} "
    "| {:>9} | {:>8} |"
)
HEADS = (
    "load", "clients", "answers", "images/s", "ratio", "busy", "in batch", "p50 ms", "p99 ms",
    "p99 / batch", "errors", "MB at end", "MB grown",
)  # fmt: skip
CLASSES = 11_166
LOAD_RATES = {"full": 0.0, "half": 0.5}  # of the network's own; 0: without a pause
IMAGES = 16  # different files
WARM_UP = 0.1  # of the seconds of a row, which do not count
ALONE_SECONDS = 3.0  # of each batch size


class Answers(NamedTuple):
    """Results of the clients after the warm-up: seconds per answer, errors, and their duration."""

    seconds: list[float]
    errors: int
    duration: float


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stages", type=int, nargs=4, default=[3, 4, 6, 3], metavar="BLOCKS")
    parser.add_argument("--size", type=int, default=224, help="side of the crops in pixels")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--max-batch", type=int, default=32)
    parser.add_argument("--delay-ms", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, help="of each row; default 60, with --quick 2")
    parser.add_argument("--rows", nargs="*", choices=LOAD_RATES, default=list(LOAD_RATES))
    parser.add_argument("--quick", action="store_true", help="a tiny network, for some seconds")
    parser.add_argument("--load", nargs=2, metavar=("PORT", "RATE"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Prints the table; with --load it is the process of the clients."""
    arguments = parse_arguments()
    if arguments.load:
        port, rate = arguments.load
        print(json.dumps(load(int(port), arguments.clients, arguments.seconds, float(rate))))
        return
    arguments.seconds = arguments.seconds or (2.0 if arguments.quick else 60.0)
    if arguments.quick:
        arguments.size, arguments.max_batch = 32, 8
    measure(arguments)


def measure(arguments: argparse.Namespace) -> None:
    """Starts a server in this process, and clients in another one."""
    import psutil
    from peers.setting import where_and_when

    from mlimages_jax.serving import server
    from mlimages_jax.serving.service import Service

    model = drawn_model(arguments)
    ready = threading.Event()
    service = Service(model, delay=arguments.delay_ms / 1e3, tell=lambda _: ready.set())
    bound = server.bound_socket("127.0.0.1", 0)
    serving = server.create_server(service)
    thread = threading.Thread(target=serving.run, kwargs={"sockets": [bound]})
    thread.start()
    while not ready.wait(1):
        if not thread.is_alive():
            sys.exit(f"the server did not start: {service.failure}")
    print(f"{where_and_when()}; {model.network.stage_sizes}, {arguments.size} px, "
          f"{arguments.dtype}, batches up to {arguments.max_batch}\n")  # fmt: skip
    print(ROW.format(*HEADS), ROW.format(*("---" for _ in HEADS)), sep="\n")
    process = psutil.Process()
    for name in arguments.rows:
        fraction = LOAD_RATES[name]
        before = alone(model)
        memory = process.memory_info().rss
        batches = [of_batches(service)]
        answers = ask(bound.getsockname()[1], arguments, rate=fraction * max(before.values()))
        batches.append(of_batches(service))
        grown = process.memory_info().rss - memory
        after = alone(model)
        network = statistics.mean((max(before.values()), max(after.values())))
        batch = arguments.max_batch / statistics.mean(
            (before[arguments.max_batch], after[arguments.max_batch])
        )
        rate = len(answers.seconds) / answers.duration
        count, seconds, images = np.subtract(batches[1], batches[0])
        p50, p99 = np.percentile(answers.seconds or [np.nan], (50, 99))
        print(ROW.format(
            name, arguments.clients, f"{len(answers.seconds):,}", f"{rate:,.1f}",
            f"{rate / network:.2f}", f"{seconds / (answers.duration / (1 - WARM_UP)):.2f}",
            f"{images / count:.1f}", f"{1e3 * p50:.0f}", f"{1e3 * p99:.0f}", f"{p99 / batch:.2f}",
            answers.errors, f"{(memory + grown) / 1e6:.0f}", f"{grown / 1e6:.0f}",
        ))  # fmt: skip
    serving.should_exit = True
    thread.join()


def drawn_model(arguments: argparse.Namespace) -> Any:
    """Returns a model with random weights and the number of classes of ML-Images."""
    import jax
    import jax.numpy as jnp

    from mlimages_jax.data.images.views import EvaluationView
    from mlimages_jax.inference.model import Model
    from mlimages_jax.labels.hierarchy import Hierarchy
    from mlimages_jax.models.resnet import ResNet
    from mlimages_jax.settings import build

    dtype = build.compute_dtype(arguments.dtype)
    if arguments.quick:
        network = ResNet(
            CLASSES, stage_sizes=(1, 1), stage_widths=(16, 32), stem_width=8, stem_kernel=3,
            dtype=dtype,
        )  # fmt: skip
    else:
        network = ResNet(CLASSES, stage_sizes=tuple(arguments.stages), dtype=dtype)
    size = arguments.size
    weights = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, size, size, 3)))
    names = tuple(f"n{index}" for index in range(CLASSES))
    parents = np.arange(CLASSES) // 8 - 1  # a tree
    return Model(
        params=weights["params"],
        batch_stats=weights["batch_stats"],
        network=network,
        hierarchy=Hierarchy(names, names, parents),
        loss="sigmoid",
        positive_weight=1.0,
        view=EvaluationView(size, "short_side"),
        max_batch=arguments.max_batch,
    )


def of_batches(service: Any) -> tuple[float, float, float]:
    """Returns the number of batches so far, their seconds, and their images."""
    from prometheus_client.parser import text_string_to_metric_families

    sums = dict.fromkeys(("batch_seconds_count", "batch_seconds_sum", "batch_images_sum"), 0.0)
    for family in text_string_to_metric_families(service.metrics.text().decode()):
        for sample in family.samples:
            name = sample.name.removeprefix("mlimages_")
            if name in sums:
                sums[name] += sample.value
    count, seconds, images = sums.values()
    return count, seconds, images


def alone(model: Any) -> dict[int, float]:
    """Returns images per second of the network by batch size, by the median batch."""
    from mlimages_jax.serving.batcher import batch_sizes

    rates = {}
    for size in batch_sizes(model.max_batch):
        images = np.random.default_rng(0).integers(
            0, 256, (size, *model.view.empty.shape), np.uint8
        )
        end = time.perf_counter() + ALONE_SECONDS
        durations: list[float] = []
        while not durations or time.perf_counter() < end:
            begin = time.perf_counter()
            model.outputs_of(images)
            durations.append(time.perf_counter() - begin)
        rates[size] = size / statistics.median(durations)
    return rates


def ask(port: int, arguments: argparse.Namespace, *, rate: float) -> Answers:
    """Lets clients send for some seconds from another process.

    Args:
        port: Port of the server on 127.0.0.1.
        arguments: The command line; its clients and seconds are used.
        rate: Images per second of all clients together; 0 sends without a pause.
    """
    # Threads of this process would share the server's GIL, and slow down what they measure.
    command = [
        sys.executable, str(Path(__file__).resolve()), "--load", str(port), str(rate),
        "--clients", str(arguments.clients), "--seconds", str(arguments.seconds),
    ]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Answers(*json.loads(done.stdout))


def load(port: int, clients: int, seconds: float, rate: float) -> Answers:
    """Sends from threads; returns their results."""
    rng = np.random.default_rng(0)
    # Flat squares of 32 pixels: JPEGs of pure noise are several times as large as photographs.
    files = [
        simplejpeg.encode_jpeg(
            rng.integers(0, 256, (12, 16, 3), np.uint8).repeat(32, 0).repeat(32, 1)[:375, :500]
            .copy(), quality=90,
        )
        for _ in range(IMAGES)
    ]  # fmt: skip
    begin = time.monotonic()
    counted_from, end = begin + WARM_UP * seconds, begin + seconds
    pause = clients / rate if rate else 0.0
    found: list[float] = []
    errors: list[str] = []

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        due = begin + pause * number / clients
        while True:
            time.sleep(max(0.0, due - time.monotonic()))
            start = max(due, begin) if pause else time.monotonic()
            if start >= end:
                return
            # Behind a server too slow for the rate, the backlog would take as long as it likes.
            if time.monotonic() >= end + seconds:
                errors.append("due long ago, and the server still has the last one")
                return
            try:
                connection.request(
                    "POST", "/v1/tags", files[number % IMAGES], {"Content-Type": "image/jpeg"}
                )
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    errors.append(str(answer.status))
                elif start >= counted_from:
                    # With a pause from the due time, so that a late start counts as waiting.
                    found.append(time.monotonic() - start)
            except (OSError, http.client.HTTPException) as error:
                errors.append(str(error))
                connection.close()
            due += pause

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Answers(found, len(errors), time.monotonic() - counted_from)


if __name__ == "__main__":
    main()
