# SPDX-License-Identifier: BSD-3-Clause
"""Question: how good is a tagger on a small set after some minutes, beside timm's networks?

Trains on each set with `--config=tagger` and with networks of timm, each alone in its own process
for the same minutes on the same machine, from its start to its end. The peers get our loss, AdamW,
prior bias, EMA and a cosine too (peers/timm_tagger.py), and timm's augmentation. Measured on val:
mAP; F1 (macro) with thresholds for the highest F1, found on one half of val and used on the other,
both ways; hierarchical F1. Classes without positives in val are left out.

    python benchmarks/small_sets.py --peer-python VENV/bin/python --stamps FOLDER
    python benchmarks/small_sets.py --quick          # the drawn set, without peers

FOLDER has dictionary.txt, the two lists and images/. Without it, only the drawn set is used. The
peers need torch and timm, in an environment of their own.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from peers.setting import where_and_when

import mlimages_jax as mli
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.records import Record, record_at
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.metrics.multi_label import MultiLabelMetrics
from mlimages_jax.metrics.thresholds import Objective, find_thresholds
from tfds_builders import ml_images, shapes

PEER = Path(__file__).parent / "peers" / "timm_tagger.py"
MODELS = (("resnet26d", 64), ("resnet26d", 128), ("resnetv2_50", 64))
CONFIDENCE = 0.7  # from which a label is true, as in training
ROW = "| {:10} | {:26} | {:>4} | {:>13} | {:>13} | {:>13} | {:>6} |"


class Result(NamedTuple):
    """Metrics of a tagger on val."""

    mean_ap: float
    f1: float
    hierarchical_f1: float


class Val(NamedTuple):
    """The validation images: their hierarchy, JPEG bytes and targets [m, C]."""

    hierarchy: Hierarchy
    images: list[bytes]
    targets: np.ndarray


def main() -> None:
    """Trains all contenders and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--peer-python", help="an interpreter that has torch and timm")
    parser.add_argument("--stamps", type=Path)
    parser.add_argument("--quick", action="store_true", help="a minute, one seed, no peers")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.minutes, arguments.seeds, arguments.peer_python = 1, 1, None
    print(f"{where_and_when()}; {arguments.minutes:g} minutes each\n")
    print(ROW.format("set", "tagger", "runs", "mAP", "F1", "hier. F1", "x mAP"))
    print("|:--|:--|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as temporary:
        for name, folder in sets(Path(temporary), arguments.stamps):
            compare(name, folder, Path(temporary), arguments)


def sets(folder: Path, stamps: Path | None) -> Iterator[tuple[str, Path]]:
    """Builds the sets and yields their names and folders."""
    yield "drawn", Path(shapes.build(folder / "data", num_train=3_000, num_val=1_000))
    if stamps:
        yield "stamps", Path(ml_images.build(stamps, folder / "data", name="stamps",
                                             labels="closed", allow_shared=True))  # fmt: skip


def compare(name: str, folder: Path, work: Path, arguments: argparse.Namespace) -> None:
    """Trains our tagger and the peers on a set, with every seed."""
    data = DataSet.open(folder)
    hierarchy = Hierarchy.from_file(data.class_list)
    train = records_of(data, "train")
    val_records = records_of(data, "val")
    val = Val(hierarchy, [one.jpeg for one in val_records], targets_of(val_records, data))
    found: dict[str, list[Result]] = {}
    for seed in range(arguments.seeds):
        run = work / f"{name}_{seed}"
        found.setdefault("ours", []).append(ours(folder, run, val, seed, arguments.minutes))
        if arguments.peer_python:
            files = work / f"{name}.npz"
            save(files, train, val, data)
            for model, size in MODELS:
                result = peer(arguments, files, model, size, val, seed)
                found.setdefault(f"timm {model}, {size} px", []).append(result)
    ours_map = np.mean([one.mean_ap for one in found["ours"]])
    for tagger, results in found.items():
        columns = [f"{np.mean(v):.3f} ± {np.std(v):.3f}" for v in zip(*results, strict=True)]
        ratio = np.mean([one.mean_ap for one in results]) / ours_map
        print(ROW.format(name, tagger, len(results), *columns, f"{ratio:.2f}"), flush=True)


def ours(folder: Path, workdir: Path, val: Val, seed: int, minutes: float) -> Result:
    """Trains by the command, as a user would, and evaluates the model that it leaves."""
    command = [
        sys.executable, "-m", "mlimages_jax", "train", "--config=tagger", f"--data={folder}",
        f"--workdir={workdir}", f"--minutes={minutes:g}", f"--config.seed={seed}",
    ]  # fmt: skip
    run(command, "ours", minutes)
    model = mli.load(workdir)
    return judge(model.probabilities(val.images), val)


def peer(
    arguments: argparse.Namespace, files: Path, model: str, size: int, val: Val, seed: int
) -> Result:
    """Trains a network of timm for the same time."""
    scores = files.with_name("scores.npy")
    command = [
        arguments.peer_python, str(PEER), str(files), str(scores), f"--model={model}",
        f"--size={size}", f"--minutes={arguments.minutes:g}", f"--seed={seed}",
    ]  # fmt: skip
    run(command, model, arguments.minutes)
    return judge(np.load(scores), val)


def run(command: list[str], name: str, minutes: float) -> None:
    """Runs a training, and says how long it took where it exceeds the minutes."""
    begin = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(
            f"{name} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
    took = (time.monotonic() - begin) / 60
    if took > 1.1 * minutes:
        print(f"{name} took {took:.1f} minutes instead of {minutes:g}", file=sys.stderr)


def judge(probabilities: np.ndarray, val: Val) -> Result:
    """Computes the metrics; thresholds are never used on the images they were found on."""
    whole = metrics_of(probabilities, val, np.arange(len(val.targets)))
    values = whole.compute()
    halves = np.array_split(np.random.default_rng(0).permutation(len(val.targets)), 2)
    f1 = []
    for on, of in (halves, halves[::-1]):
        found = find_thresholds(metrics_of(probabilities, val, on), Objective("f1"))
        predicted = probabilities[of] >= found.probabilities
        true = val.targets[of] >= CONFIDENCE
        hits = (predicted & true).sum(0)
        counted = true.any(0)
        f1.append((2 * hits / np.maximum(predicted.sum(0) + true.sum(0), 1))[counted].mean())
    return Result(values["mAP"], float(np.mean(f1)), values["hierarchical_f1"])


def metrics_of(probabilities: np.ndarray, val: Val, chosen: np.ndarray) -> MultiLabelMetrics:
    """Returns the metrics of some images, from logits, as the network's outputs are."""
    metrics = MultiLabelMetrics(
        len(val.hierarchy), val.hierarchy.paths(), threshold=CONFIDENCE, exact=True
    )
    p = np.clip(probabilities[chosen].astype(np.float64), 1e-12, 1 - 1e-12)
    metrics.update(np.log(p / (1 - p)).astype(np.float32), val.targets[chosen],
                   np.ones(len(chosen), bool))  # fmt: skip
    return metrics


def records_of(data: DataSet, split: str) -> list[Record]:
    """Reads all records of a split."""
    records = data.records(split)
    return [record_at(records, i) for i in range(len(records))]


def targets_of(records: list[Record], data: DataSet) -> np.ndarray:
    """Returns the confidences, float32 [n, C]."""
    targets = np.full((len(records), data.num_classes), data.missing_labels, np.float32)
    for row, record in zip(targets, records, strict=True):
        row[record.labels] = record.confidences
    return targets


def save(path: Path, train: list[Record], val: Val, data: DataSet) -> None:
    """Writes what the peers read."""
    np.savez(
        path,
        train=np.array([one.jpeg for one in train], object),
        val=np.array(val.images, object),
        train_labels=(targets_of(train, data) >= CONFIDENCE).astype(np.uint8),
    )


if __name__ == "__main__":
    main()
