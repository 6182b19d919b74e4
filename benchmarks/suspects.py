# SPDX-License-Identifier: BSD-3-Clause
"""Are planted label errors found? Precision of the first suspects on a drawn set.

Takes the drawn set of the quickstart, removes 5% of its labels and adds as many false ones, runs
`mlimages suspects` on it, and compares the tables with what was planted. The peer is a random order
of the labels.

    python benchmarks/suspects.py
    python benchmarks/suspects.py --images 1000 --steps 150
"""

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from peers.setting import where_and_when
from tensorflow_datasets.proto import tf_example_pb2

from mlimages_jax import settings
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.records import parse_record
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.settings.tagger import Suspects
from mlimages_jax.training import suspects
from tfds_builders import shapes

ERRORS = 0.05
FIRST = (50, 100, 200)
ROW = "| {:10} | {:>8} | {:>12} | {:>12} | {:>12} | {:>13} |"


def main() -> None:
    """Plants errors, runs the task and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=4_000)
    parser.add_argument("--steps", type=int, default=400, help="of each training")
    parser.add_argument("--folds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = shapes.build(Path(temporary) / "data", num_train=arguments.images, num_val=200)
        wrong, missing, labels = plant(Path(folder))
        begin = time.monotonic()
        config = settings.load(
            "quickstart",
            {
                "task": "suspects",
                "data.folder": str(folder),
                "folds": arguments.folds,
                "total_steps": arguments.steps,
            },
        )
        assert isinstance(config, Suspects)
        suspects.find_suspects(config, Path(temporary) / "run")
        seconds = time.monotonic() - begin
        print(where_and_when(), f"; {arguments.images} images, {labels} labels, "
              f"{len(wrong)} of them wrong, {len(missing)} missing; {arguments.folds} trainings of "
              f"{arguments.steps} steps, {seconds:.0f} s\n", sep="")  # fmt: skip
        print(ROW.format("problem", "planted", *(f"first {n}" for n in FIRST), "by chance"))
        print("|:--|--:|--:|--:|--:|--:|")
        classes = DataSet.open(folder).num_classes
        for problem, planted, out_of in (
            ("wrong", wrong, labels),
            ("missing", missing, arguments.images * classes - labels),
        ):
            found = table(Path(temporary) / "run" / f"{problem}_labels.tsv")
            shares = [np.mean([float(one in planted) for one in found[:n]] or [0.0]) for n in FIRST]
            chance = len(planted) / out_of
            print(ROW.format(problem, len(planted), *(f"{s:.2f}" for s in shares), f"{chance:.3f}"))


def plant(folder: Path) -> tuple[set[tuple[str, int]], set[tuple[str, int]], int]:
    """Rewrites the training records with planted errors.

    Only classes without children are changed: they and their ancestors are given together.

    Returns:
        Wrong labels and missing ones, as (image, class), and the number of labels afterwards.
    """
    metadata = json.loads((folder / "metadata.json").read_text())
    metadata["max_labels"] += 1  # an image gets one planted label at most
    (folder / "metadata.json").write_text(json.dumps(metadata))
    hierarchy = Hierarchy.from_file(folder / "dictionary.txt")
    leaves = np.setdiff1d(np.arange(len(hierarchy)), hierarchy.parents)
    rng = np.random.default_rng(0)
    wrong: set[tuple[str, int]] = set()
    missing: set[tuple[str, int]] = set()
    labels = 0
    data_set = DataSet.open(folder)
    records = data_set.records("train")
    rows = iter([records[i] for i in range(len(records))])  # read before a file is overwritten
    for shard in data_set.shards_of("train"):
        writer = ArrayRecordWriter(str(shard.path), "group_size:1,uncompressed")
        for data in itertools.islice(rows, shard.num_records):
            record = parse_record(data)
            given = dict(zip(record.labels.tolist(), record.confidences.tolist(), strict=True))
            own = [class_ for class_ in leaves.tolist() if given.get(class_, 0) > 0]
            if own and rng.random() < ERRORS * len(own):
                class_ = int(rng.choice(own))
                del given[class_]
                missing.add((record.name, class_))
            if rng.random() < ERRORS * len(own):
                free = [class_ for class_ in leaves.tolist() if class_ not in given]
                # A label that was just removed is in `free` too, and would not be wrong.
                class_ = int(rng.choice([c for c in free if (record.name, c) not in missing]))
                given[class_] = 1.0
                wrong.add((record.name, class_))
            labels += sum(value > 0 for value in given.values())
            writer.write(_with_labels(data, given))
        writer.close()
    return wrong, missing, labels


def _with_labels(data: bytes, labels: dict[int, float]) -> bytes:
    example = tf_example_pb2.Example.FromString(data)
    feature = example.features.feature
    feature["labels"].int64_list.value[:] = labels
    feature["confidences"].float_list.value[:] = labels.values()
    return example.SerializeToString()


def table(path: Path) -> list[tuple[str, int]]:
    """Reads a table of suspects as (image, class), the strongest suspicion first."""
    _, *rows = path.read_text().splitlines()
    return [(cells[0], int(cells[1])) for cells in (row.split("\t") for row in rows)]


if __name__ == "__main__":
    main()
