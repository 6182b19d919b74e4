# SPDX-License-Identifier: BSD-3-Clause
"""Measures one thing at one size: a step, the metrics, the input or a list."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import psutil
import simplejpeg

from mlimages_jax.data import pipeline
from mlimages_jax.data.images import views
from mlimages_jax.data.images.decode import StoredImage
from mlimages_jax.distributed import sharding
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelRow
from mlimages_jax.metrics.multi_label import MultiLabelMetrics
from mlimages_jax.plan import compiled
from mlimages_jax.settings import build
from peers.serve import Values, arguments, serve
from peers.setting import load_config
from tfds_builders.images import records

NUM_LABELS = 9  # per image; ML-Images has 8.7 on average
CHILDREN = 7  # per class in the generated hierarchies
SIDE = 32  # pixels of the input's image: small, to measure reading rather than decoding
SETTLING = 20  # warm-up batches of the input

Answer = Callable[[str], Values]


def private_bytes() -> int:
    """Returns the memory that only this process uses."""
    return psutil.Process().memory_full_info().uss


def drawn_hierarchy(num_classes: int) -> Hierarchy:
    """Makes a tree in which every class has seven children."""
    ids = tuple(f"n{i:08d}" for i in range(num_classes))
    return Hierarchy(ids, ids, (np.arange(num_classes) - 1) // CHILDREN)


def training_step(options: dict[str, Any]) -> tuple[Values, Answer]:
    """Sets up the step of configs/pretrain.py on one random batch.

    Args:
        options: Values batch, classes, devices, group (images), mode (of sharding), size (pixels),
            and stages and widths of the network.

    Returns:
        Temporaries and traffic of one device's program in bytes, and its collectives; and a
        function that runs one step.
    """
    config = load_config(
        "pretrain",
        {
            "image_size": options["size"],
            "batch_size": options["batch"],
            "group_size": min(options["group"], options["batch"]),
            "model.stage_sizes": tuple(options["stages"]),
            "model.stage_widths": tuple(options["widths"]),
            "model.dtype": "float32",
            "sharding.name": options["mode"],
        },
    )
    mesh = sharding.make_mesh()
    (stage,) = build.stages(config)
    training = build.training_step(config, mesh, num_classes=options["classes"])
    step = training.compile(stage, max_labels=NUM_LABELS)
    rng = np.random.default_rng(0)
    shape = (options["batch"], NUM_LABELS)
    rows = {
        "image": rng.integers(0, 256, (shape[0], options["size"], options["size"], 3), np.uint8),
        "labels": rng.integers(0, options["classes"], shape, np.int32),
        "confidences": np.ones(shape, np.float32),
        "mask": np.ones(shape[0], bool),
    }
    batch = jax.device_put(rows, sharding.by_example(mesh))
    state = [training.fresh_state(seed=0)]

    def run(_: str) -> Values:
        begin = time.perf_counter()
        state[0], _metrics = step(state[0], batch)
        jax.block_until_ready(state[0])
        return {"seconds": time.perf_counter() - begin}

    run("")
    found = compiled.collectives(step.as_text(), devices=mesh.size)
    return {
        "temporary": step.memory_analysis().temp_size_in_bytes,
        "traffic": step.cost_analysis()["bytes accessed"],
        "collectives": sum(kind.operations for kind in found.values()),
        "collective_bytes": sum(kind.size for kind in found.values()),
    }, run


def metrics(options: dict[str, Any]) -> tuple[Values, Answer]:
    """Sets up the multi-label metrics of an evaluation, on one random batch used repeatedly.

    Args:
        options: Values classes and examples (a multiple of 32, the batch size).

    Returns:
        No values, and a function. For `exact` or `binned`, the kind of average precision, it
        returns the seconds for all examples and the bytes kept; for `file`, the seconds to read the
        class list.
    """
    num_classes, batch = options["classes"], 32
    hierarchy = drawn_hierarchy(num_classes)
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(batch, num_classes)).astype(np.float32)
    targets = np.zeros((batch, num_classes), np.float32)
    targets[np.arange(batch)[:, None], rng.integers(0, num_classes, (batch, NUM_LABELS))] = 1

    def run(kind: str) -> Values:
        if kind == "file":
            return {"seconds": seconds_to_read(hierarchy)}
        counted = MultiLabelMetrics(
            num_classes, hierarchy.paths(), exact=kind == "exact", positive_weight=12.0
        )
        begin = time.perf_counter()
        for _ in range(options["examples"] // batch):
            counted.update(scores, targets)
        updated = time.perf_counter()
        counted.compute()
        return {
            "update": updated - begin,
            "compute": time.perf_counter() - updated,
            "kept": sum(values.nbytes for values in counted.sums().values()),
        }

    return {}, run


def seconds_to_read(hierarchy: Hierarchy) -> float:
    """Returns the time to read its class list, with the paths to the roots."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dictionary.txt"
        hierarchy.to_file(path)
        begin = time.perf_counter()
        Hierarchy.from_file(path).paths()
        return time.perf_counter() - begin


class OneRecord:
    """Any number of records that all have the same bytes; nothing is generated in advance."""

    def __init__(self, count: int):
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        image = StoredImage(simplejpeg.encode_jpeg(pixels), SIDE, SIDE)
        labels = np.arange(NUM_LABELS, dtype=np.int32)
        row = LabelRow("image.jpg", labels, np.ones(NUM_LABELS, np.float32))
        self._count, self._data = count, records.serialize(row, image)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int, /) -> bytes:
        if not 0 <= index < self._count:
            raise IndexError(f"record {index} of {self._count}")
        return self._data


def training_input(options: dict[str, Any]) -> tuple[Values, Answer]:
    """Sets up training batches, starting in the middle of the set's second epoch.

    Args:
        options: Values records, batch and batches (per measurement).

    Returns:
        No values, and a function. For `first` it returns the seconds from a fresh start to the
        first batch; for `more`, the seconds of `batches` batches after a warm-up and the bytes of
        memory that only this process uses.
    """

    def start() -> Iterator[pipeline.NumpyBatch]:
        return pipeline.training_batches(
            [OneRecord(options["records"])],
            views.TrainingView(SIDE),
            batch_size=options["batch"],
            max_labels=NUM_LABELS,
            seed=0,
            start_step=options["records"] * 3 // (2 * options["batch"]),
            num_threads=2,
        )

    def run(request: str) -> Values:
        begin = time.perf_counter()
        batches = start()
        next(batches)
        if request == "first":
            return {"seconds": time.perf_counter() - begin}
        for _ in range(SETTLING):
            next(batches)
        begin = time.perf_counter()
        for _ in range(options["batches"]):
            next(batches)
        return {"seconds": time.perf_counter() - begin, "private": private_bytes()}

    return {}, run


def label_list(options: dict[str, Any]) -> tuple[Values, Answer]:
    """Sets up `stats` of a generated list, figures included; use the process for one run only.

    Args:
        options: Value rows.

    Returns:
        No values, and a function that returns the seconds and the peak bytes of this process.
    """
    from label_lists import write_list  # in the folder of growth.py, which starts this process
    from list_statistics import measure, write_hierarchy

    folder = tempfile.TemporaryDirectory()
    path, dictionary = (Path(folder.name) / name for name in ("list.txt", "dictionary.txt"))
    write_list(path, options["rows"])
    write_hierarchy(dictionary)

    def run(_: str) -> Values:
        result = measure("stats", path, dictionary)
        folder.cleanup()
        return {"seconds": result["wall_s"], "peak": result["peak_bytes"]}

    return {}, run


KINDS = {
    "step": training_step,
    "metrics": metrics,
    "input": training_input,
    "list": label_list,
}


def main() -> None:
    """Sets up the requested measurement and serves it."""
    options = arguments()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", options.get("devices", 1))
    serve(*KINDS[options["kind"]](options))


if __name__ == "__main__":
    main()
