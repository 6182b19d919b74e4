# SPDX-License-Identifier: BSD-3-Clause
"""Are planted label errors found? Precision of the first suspects on a drawn set.

Takes the drawn set of the quickstart, removes 5% of its labels and adds as many false ones, runs
`mlimages suspects` on it, and compares the tables with what was planted. The peers are cleanlab,
given the same probabilities, and a random order of the labels.

    python benchmarks/suspects.py --peer-python VENV/bin/python
    python benchmarks/suspects.py --images 1000 --steps 150
"""

import argparse
import itertools
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import ClassVar
from unittest import mock

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from peers.setting import where_and_when
from tensorflow_datasets.proto import tf_example_pb2

from mlimages_jax import settings
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.records import parse_record
from mlimages_jax.evaluation.suspect_labels import SuspectFinder
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.settings.tagger import Suspects
from mlimages_jax.training import suspects
from tfds_builders import shapes

PEER = Path(__file__).parent / "peers" / "cleanlab_suspects.py"
ERRORS = 0.05
FIRST = (50, 100, 200)
Labels = set[tuple[str, int]]  # image and class
ROW = "| {:10} | {:10} | {:>8} | {:>12} | {:>12} | {:>12} | {:>13} |"


def main() -> None:
    """Plants errors, runs the task and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=4_000)
    parser.add_argument("--steps", type=int, default=400, help="of each training")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--peer-python", help="an interpreter that has cleanlab")
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
        with mock.patch.object(suspects, "SuspectFinder", Recorder):  # the task makes one per fold
            suspects.find_suspects(config, Path(temporary) / "run")
        seconds = time.monotonic() - begin
        print(where_and_when(), f"; {arguments.images} images, {labels} labels, "
              f"{len(wrong)} of them wrong, {len(missing)} missing; {arguments.folds} trainings of "
              f"{arguments.steps} steps, {seconds:.0f} s\n", sep="")  # fmt: skip
        heads = *(f"first {n}" for n in FIRST), "by chance"
        print(ROW.format("problem", "found by", "planted", *heads))
        print("|:--|:--|--:|--:|--:|--:|--:|")
        data = DataSet.open(folder)
        found = {"ours": tables(Path(temporary) / "run")}
        if arguments.peer_python:
            found["cleanlab"] = by_cleanlab(arguments.peer_python, Path(temporary), data)
        for problem, planted, out_of in (
            ("wrong", wrong, labels),
            ("missing", missing, arguments.images * data.num_classes - labels),
        ):
            for finder, tables_of in found.items():
                first = [[one in planted for one in tables_of[problem][:n]] for n in FIRST]
                shares = [f"{np.mean(hits or [False]):.2f}" for hits in first]
                chance = f"{len(planted) / out_of:.3f}"
                print(ROW.format(problem, finder, len(planted), *shares, chance))


class Recorder(SuspectFinder):
    """Keeps what it judges, for the peer."""

    judged: ClassVar[list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = []  # of all folds

    def add(self, positions: np.ndarray, probabilities: np.ndarray, targets: np.ndarray) -> None:
        """Keeps the predictions and adds them."""
        self.judged.append((positions, probabilities, targets))
        super().add(positions, probabilities, targets)


def by_cleanlab(python: str, folder: Path, data: DataSet) -> dict[str, list[tuple[str, int]]]:
    """Returns the labels that cleanlab suspects, the least probable first, by problem."""
    positions, probabilities, targets = map(np.concatenate, zip(*Recorder.judged, strict=True))
    given = targets > 0
    files = folder / "predictions.npz", folder / "issues.npy"
    np.savez(files[0], probabilities=probabilities, given=given)
    subprocess.run([python, str(PEER), *map(str, files)], check=True)
    issues = np.load(files[1])
    records = data.records("train")
    names = [parse_record(records[int(position)]).name for position in positions]
    confidence = np.where(given, probabilities, 1 - probabilities)
    rows, classes = np.nonzero(issues)
    order = np.argsort(confidence[rows, classes], kind="stable")
    ranked = [(int(rows[i]), int(classes[i])) for i in order]
    return {
        problem: [(names[row], class_) for row, class_ in ranked if given[row, class_] == is_given]
        for problem, is_given in (("wrong", True), ("missing", False))
    }


def tables(folder: Path) -> dict[str, list[tuple[str, int]]]:
    """Reads the tables of suspects, by problem."""
    return {problem: table(folder / f"{problem}_labels.tsv") for problem in ("wrong", "missing")}


def plant(folder: Path) -> tuple[Labels, Labels, int]:
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
    wrong: Labels = set()
    missing: Labels = set()
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
