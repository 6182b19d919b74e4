# SPDX-License-Identifier: BSD-3-Clause
"""Question: how good is a tagger on a small set after some minutes, beside timm's networks?

Trains on each set with `--config=tagger` and with networks of timm, each alone in its own process
for the same minutes on the same machine, from its start to its end. Ours plans its steps from a
measured speed, so it may miss the time; peers get what it took with the same seed, if that is more.
They also get our loss, AdamW, prior bias, EMA and a cosine (peers/timm_tagger.py), and timm's
augmentation. Measured on val:
mAP; F1 (macro) with thresholds for the highest F1, found on one half of val and used on the other,
both ways; hierarchical F1. Classes without positives in val are left out.

    python benchmarks/small_sets.py --peer-python VENV/bin/python --sets stamps=A "clip art=B"
    python benchmarks/small_sets.py --quick          # the drawn set, without peers

A and B have dictionary.txt, the two lists and images/, in the format of ML-Images; B is written by
peers/clip_art_set.py. Without them, only the drawn set is used. The peers need torch and timm, in
an environment of their own. With --results FILE.jsonl, every result is kept in a file, and what is
there is not run again. --ablate also trains our tagger with one ingredient changed at a time (all,
or those named; "mixup + crops of 0.7 to 1" changes two), --pretrain on each other set for the same
minutes before, as docs/guide/tagger.md advises.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
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
# Names of timm (or torchvision.NAME) at sizes in pixels; the third part is the smallest crop of the
# image, else 0.25; the fourth timm's automatic augmentation.
PEERS = ("resnet26d@48", "resnet26d@64", "resnet26d@48@0.7", "resnet26d@64@0.7", "resnetv2_50@64")
SGD = ("optimizer.name=sgd", "schedule.cosine.learning_rate=0.1", "optimizer.weight_decay=1e-4")
ABLATIONS: dict[str, tuple[str, ...]] = {
    "SGD": SGD,
    "bias at 0": ("loss.prior_bias=False",),
    "without EMA": ("optimizer.ema_decay=1e-9",),
    "crops of 0.25 to 1": ("crop.area=(0.25,1.0)",),
    "crops of 0.5 to 1": ("crop.area=(0.5,1.0)",),
    "crops of 0.7 to 1": ("crop.area=(0.7,1.0)",),
    "hue turned": ("augmentation.hue=0.2",),
    "hue as it is": ("augmentation.hue=0.0",),
    "colours as they are": ("augmentation.colour=False",),
    "mixup": ("augmentation.mixup=0.2",),
    "RandAugment": ("augmentation.rand_augment=2",),
    "sigmoid loss": ("loss.name=sigmoid",),
    "focal loss": ("loss.name=focal",),
    "two-way loss": ("loss.name=two_way",),
    "asymmetric loss, gamma 2": ("loss.asymmetric.gamma_negative=2.0",),
    "asymmetric loss, gamma 1": ("loss.asymmetric.gamma_negative=1.0",),
    "asymmetric loss, no clip": ("loss.asymmetric.clip=0.0",),
    "weighted loss": ("loss.name=weighted",),
    "weighted loss, bias at 0": ("loss.name=weighted", "loss.prior_bias=False"),
}
SIZES: dict[str, tuple[str, ...]] = {  # their steps take another time, so minutes decide
    "64 px": ("image_size=64",),
    "32 px": ("image_size=32",),
    "half as wide": ("model.stage_widths=(64,128,256)",),
    "twice as wide": ("model.stage_widths=(256,512,1024)",),
    "two blocks a stage": ("model.stage_sizes=(2,2,2)",),
}
FINETUNING = ("schedule.cosine.learning_rate=5e-4",)  # docs/guide/tagger.md
CONFIDENCE = 0.7  # from which a label is true, as in training
ROW = "| {:10} | {:26} | {:>4} | {:>13} | {:>13} | {:>13} | {:>11} | {:>6} |"


class Result(NamedTuple):
    """Metrics of a tagger on val, and the minutes that it took."""

    mean_ap: float
    f1: float
    hierarchical_f1: float
    took: float


class Val(NamedTuple):
    """The validation images: their hierarchy, JPEG bytes and targets [m, C]."""

    hierarchy: Hierarchy
    images: list[bytes]
    targets: np.ndarray


def main() -> None:
    """Trains all contenders and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--epochs", type=int, help="train ours for these, not for minutes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--peer-python", help="an interpreter that has torch and timm")
    parser.add_argument(
        "--peers", nargs="*", default=PEERS, metavar="MODEL@PIXELS[@AREA[@AUGMENT]]"
    )
    parser.add_argument("--sets", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--results", type=Path, help="keep and reuse results in this file")
    parser.add_argument("--ablate", nargs="*", help="one ingredient at a time; 'A + B' changes two")
    parser.add_argument("--pretrain", action="store_true", help="also start from the other sets")
    parser.add_argument("--no-drawn", dest="drawn", action="store_false", help="only --sets")
    parser.add_argument("--quick", action="store_true", help="a minute, one seed, no peers")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.minutes, arguments.seeds, arguments.peer_python = 1, 1, None
    for name in arguments.ablate or ():
        if unknown := set(name.split(" + ")) - {*ABLATIONS, *SIZES}:
            known = ", ".join(map(repr, [*ABLATIONS, *SIZES]))
            parser.error(f"--ablate: {', '.join(map(repr, unknown))} is none of {known}")
    if arguments.epochs and arguments.peer_python:
        parser.error("peers are compared by minutes: leave out --epochs or --peer-python")
    cores = len(os.sched_getaffinity(0))
    print(f"{where_and_when()}; {length(arguments)} on {cores} cores each\n")
    print(ROW.format("set", "tagger", "runs", "mAP", "F1", "hier. F1", "minutes", "x mAP"))
    print("|:--|:--|--:|--:|--:|--:|--:|--:|", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        contests = [
            Contest(name, folder, Path(temporary), arguments)
            for name, folder in sets(Path(temporary), arguments.sets, drawn=arguments.drawn)
        ]
        for contest in contests:
            others = [one for one in contests if one is not contest and arguments.pretrain]
            compare(contest, others)


def length(arguments: argparse.Namespace) -> str:
    """Returns how long each tagger is trained."""
    epochs = arguments.epochs
    return f"{epochs} epochs" if epochs else f"{arguments.minutes:g} minutes"


def sets(folder: Path, others: list[str], *, drawn: bool) -> Iterator[tuple[str, Path]]:
    """Builds the sets and yields their names and folders."""
    if drawn:
        yield "drawn", Path(shapes.build(folder / "data", num_train=3_000, num_val=1_000))
    for other in others:
        name, _, source = other.partition("=")
        yield name, Path(ml_images.build(source, folder / "data", name=name.replace(" ", "_"),
                                         labels="closed", allow_shared=True))  # fmt: skip


class Contest:
    """A set, on which taggers are trained for the same time."""

    def __init__(self, name: str, folder: Path, work: Path, arguments: argparse.Namespace) -> None:
        self.name = name
        self.arguments = arguments
        self._folder, self._work = folder, work
        self._results: dict[tuple[str, int], Result] = {}
        data = DataSet.open(folder)
        val = records_of(data, "val")
        hierarchy = Hierarchy.from_file(data.class_list)
        self._val = Val(hierarchy, [one.jpeg for one in val], targets_of(val, data))
        self._files = work / f"{name}.npz"
        if arguments.peer_python:
            save(self._files, records_of(data, "train"), self._val, data)

    def result(self, tagger: str, seed: int, train: Callable[[int], Result]) -> Result:
        """Returns the result of a tagger; trains it unless its result is kept."""
        if (tagger, seed) not in self._results:
            self._results[tagger, seed] = self._kept_or_new(tagger, seed, train)
        return self._results[tagger, seed]

    def _kept_or_new(self, tagger: str, seed: int, train: Callable[[int], Result]) -> Result:
        file: Path | None = self.arguments.results
        unit = "epochs" if self.arguments.epochs else "minutes"
        amount = getattr(self.arguments, unit)
        key = {"set": self.name, "tagger": tagger, "seed": seed, unit: amount}
        if file and file.exists():
            for line in file.read_text().splitlines():
                kept = json.loads(line)
                if kept.items() >= key.items():
                    return Result(*(kept[field] for field in Result._fields))
        found = train(seed)
        if file:
            with file.open("a") as out:
                print(json.dumps(key | found._asdict()), file=out)
        return found

    def ours(self, seed: int, changes: tuple[str, ...] = ()) -> Result:
        """Trains by the command, as a user would, and evaluates the model that it leaves."""
        with tempfile.TemporaryDirectory(dir=self._work) as workdir:
            took = self.train_ours(workdir, seed, changes)
            return judge(mli.load(workdir).probabilities(self._val.images), self._val, took)

    def train_ours(self, workdir: str, seed: int, changes: tuple[str, ...]) -> float:
        """Trains our tagger and returns the minutes that it took."""
        epochs = self.arguments.epochs
        command = [
            sys.executable, "-m", "mlimages_jax", "train", "--config=tagger",
            f"--data={self._folder}", f"--workdir={workdir}",
            f"--config.seed={seed}",
            f"--config.epochs={epochs}" if epochs else f"--minutes={self.arguments.minutes:g}",
            *(f"--config.{change}" for change in changes),
        ]  # fmt: skip
        return run(command, "ours")

    def pretrained(self, seed: int, other: "Contest") -> Result:
        """Trains on another set, then on this one, each for all of the minutes."""
        with tempfile.TemporaryDirectory(dir=self._work) as workdir:
            other.train_ours(workdir, seed, ())
            return self.ours(seed, (f"init_from={workdir}", *FINETUNING))

    def peer(self, model: str, size: str, area: str, augment: str, seed: int) -> Result:
        """Trains a network of timm or torchvision for the same time."""
        scores = self._work / "scores.npy"
        minutes = max(self.arguments.minutes, self.result("ours", seed, self.ours).took)
        command = [
            self.arguments.peer_python, str(PEER), str(self._files), str(scores),
            f"--model={model}", f"--size={size}", f"--area={area}", f"--minutes={minutes:g}",
            f"--seed={seed}", *([f"--auto-augment={augment}"] if augment else []),
        ]  # fmt: skip
        took = run(command, model)
        return judge(np.load(scores), self._val, took)


def compare(contest: Contest, others: list[Contest]) -> None:
    """Trains our tagger and the peers on a set with every seed, and prints their rows.

    Args:
        contest: The set.
        others: Sets to pretrain our tagger on, one at a time.
    """
    arguments = contest.arguments
    taggers: dict[str, Callable[[int], Result]] = {"ours": contest.ours}
    if arguments.peer_python:
        for peer in arguments.peers:
            model, size, area, augment = read_peer(peer)
            crops = "" if area == "0.25" else f", crops of {area} to 1"
            name = f"timm {model}, {size} px{crops}{augment and f', {augment}'}"
            name = name.replace("timm torchvision.", "torchvision ")
            taggers[name] = functools.partial(contest.peer, model, size, area, augment)
    for name in ablations(arguments):
        changes = sum(map((ABLATIONS | SIZES).__getitem__, name.split(" + ")), ())
        taggers[f"ours, {name}"] = functools.partial(contest.ours, changes=changes)
    for other in others:
        taggers[f"ours, from {other.name}"] = functools.partial(contest.pretrained, other=other)
    ours_map = float("nan")
    for tagger, train in taggers.items():
        results = [contest.result(tagger, seed, train) for seed in range(arguments.seeds)]
        if tagger == "ours":
            ours_map = float(np.mean([one.mean_ap for one in results]))
        *metrics, took = zip(*results, strict=True)
        columns = [*(with_spread(values, 3) for values in metrics), with_spread(took, 1)]
        ratio = np.mean([one.mean_ap for one in results]) / ours_map
        print(ROW.format(contest.name, tagger, len(results), *columns, f"{ratio:.2f}"), flush=True)


def read_peer(text: str) -> tuple[str, str, str, str]:
    """Returns model, pixels, smallest crop and automatic augmentation of a peer's name."""
    model, size, *others = text.split("@")
    area, augment = (*others, *("0.25", "")[len(others) :])
    return model, size, area, augment


def ablations(arguments: argparse.Namespace) -> list[str]:
    """Returns the names of those to train."""
    if arguments.ablate is None:
        return []
    return arguments.ablate or [*ABLATIONS, *([] if arguments.epochs else SIZES)]


def with_spread(values: tuple[float, ...], digits: int) -> str:
    """Returns the mean, with the sample's standard deviation if there are several values."""
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def run(command: list[str], name: str) -> float:
    """Runs a training and returns the minutes that it took."""
    begin = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(
            f"{name} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
    return (time.monotonic() - begin) / 60


def judge(probabilities: np.ndarray, val: Val, took: float) -> Result:
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
    return Result(values["mAP"], float(np.mean(f1)), values["hierarchical_f1"], took)


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
