# SPDX-License-Identifier: BSD-3-Clause
"""Writes a workdir as a finished training on ML-Images leaves it, with drawn numbers."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mlimages_jax.data.images.jpeg_encoder import encode
from mlimages_jax.evaluation import examples_file
from mlimages_jax.evaluation.class_details import COLUMNS
from mlimages_jax.evaluation.examples_file import Example
from mlimages_jax.files.escaping import tsv_row
from mlimages_jax.labels.hierarchy import Hierarchy

NUM_CLASSES = 11_166
_SIDE = 128  # pixels of an example
_BRANCHES = 6  # classes below a class, on average


def write_run(
    folder: Path, *, num_classes: int = NUM_CLASSES, examples: int = 96, names: Sequence[str] = ()
) -> Path:
    """Writes a workdir with all files that `mlimages report` reads.

    Args:
        folder: The workdir; it is created.
        num_classes: Number of classes.
        examples: Number of images in examples.json.
        names: Names of the first classes; the others are numbered.

    Returns:
        `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    hierarchy = _hierarchy(num_classes, names)
    hierarchy.to_file(folder / "dictionary.txt")
    lines = [tsv_row(COLUMNS), *map(tsv_row, _classes(hierarchy, random))]
    (folder / "per_class.tsv").write_text("".join(lines), encoding="utf-8")
    examples_file.write(folder / examples_file.FILE_NAME, _examples(hierarchy, random, examples))
    _write_progress(folder, random)
    return folder


def _hierarchy(num_classes: int, names: Sequence[str]) -> Hierarchy:
    parents = [-1, *((i - 1) // _BRANCHES for i in range(1, num_classes))]
    ids = tuple(f"n{i:08}" for i in range(num_classes))
    numbered = (f"class number {i}, a synonym" for i in range(len(names), num_classes))
    return Hierarchy(ids, (*names, *numbered), np.array(parents, np.int32))


def _classes(hierarchy: Hierarchy, random: np.random.Generator) -> Iterator[tuple[object, ...]]:
    """Yields the cells of every class: the rarer, the worse; one in fifty without images."""
    count = len(hierarchy)
    train = np.ceil(1e6 * (1 + np.arange(count)) ** -1.1).astype(int)
    precision = np.clip(0.12 * np.log10(train + 1) + random.normal(0.1, 0.12, count), 0.01, 0.99)
    for i in range(count):
        if random.random() < 0.02:
            yield (i, hierarchy.ids[i], hierarchy.depth[i], "", "", "", "", train[i], 0, "", "", "",
                   "", hierarchy.names[i])  # fmt: skip
            continue
        ap = precision[i]
        numbers = (ap, max(ap - 0.1, 0), min(ap + 0.1, 1), min(ap + 0.3, 1))
        rest = (0.3, min(ap + 0.05, 1), ap, ap)
        yield (i, hierarchy.ids[i], hierarchy.depth[i], *(f"{one:.4f}" for one in numbers),
               train[i], -(-train[i] // 200), *(f"{one:.4f}" for one in rest),
               hierarchy.names[i])  # fmt: skip


def _examples(hierarchy: Hierarchy, random: np.random.Generator, count: int) -> list[Example]:
    examples = []
    for number in range(count):
        coarse = random.integers(0, 255, (8, 8, 3), np.uint8)
        pixels = np.kron(coarse, np.ones((_SIDE // 8, _SIDE // 8, 1), np.uint8))
        jpeg = b"".join(encode(pixels, quality=85, chroma="420"))
        true, wrong, missed = random.integers(0, len(hierarchy), 3).tolist()
        predicted = ((true, 0.93, True), (wrong, 0.61, False))
        examples.append(Example(f"image_{number}.jpg", jpeg, (true, missed), predicted))
    return examples


def _write_progress(folder: Path, random: np.random.Generator) -> None:
    """Writes what the training logs: 2,000 lines of training, 20 evaluations, two starts."""
    with (folder / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for step in range(100, 200_001, 100):
            loss = 5 * step**-0.3 + 0.02 * random.random()
            line = {"step": step, "training/loss": loss, "training/learning_rate": 0.1 / step,
                    "training/images_per_second": 3_900 + 100 * random.random(),
                    "training/input_wait": 0.02 * random.random()}  # fmt: skip
            file.write(json.dumps(line) + "\n")
            if step % 10_000 == 0:
                values = {"val/loss": 1.1 * loss, "val/mAP": 0.7 - loss / 2}
                file.write(json.dumps({"step": step, **values}) + "\n")
    values = {"mAP": 0.42, "mAP_tail": 0.21, "loss": 0.3, "calibration_error": 0.031}
    (folder / "metrics.json").write_text(json.dumps(values))
    starts = ((0.0, 0, 100_000, False), (40_000.0, 100_000, 200_000, True))
    with (folder / "goodput.jsonl").open("w", encoding="utf-8") as file:
        for start, restored, step, finished in starts:
            seconds = {"startup": 30, "restore": 5, "compile": 90, "input": 400, "step": 35_000,
                       "evaluation": 900, "save": 60}  # fmt: skip
            line = {"start": start, "time": start + sum(seconds.values()), "restored": restored,
                    "step": step, "seconds": seconds, "finished": finished,
                    "devices": "64 x TPU v5"}  # fmt: skip
            file.write(json.dumps(line) + "\n")
    rows = [(i / 10, (i + 1) / 10, 10 ** (8 - i / 2), i / 10 + 0.05, i / 11) for i in range(10)]
    columns = ("from", "to", "predictions", "mean_probability", "accuracy")
    (folder / "calibration.tsv").write_text("".join(map(tsv_row, [columns, *rows])))
    settings = {"task": "train", "total_steps": 200_000, "batch_size": 4096}
    (folder / "config.json").write_text(json.dumps(settings))
