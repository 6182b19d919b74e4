# SPDX-License-Identifier: BSD-3-Clause
"""Question: what do the ONNX exports lose and gain, in float32, float16 and int8, on a CPU?

Accuracy: trains the quickstart on its drawn images (or takes `--workdir`, where it was trained),
exports it in every form, and compares the outputs on the validation images with ours: the largest
difference of a logit, how much of the top 5 is the same, and the mAP. int8 is calibrated on 256
training images. The last form takes uint8 images and crops them itself.

Speed: a network with random weights in ONNX Runtime, in JAX, and in PyTorch with the module of
`to-torch` (channels_last), if `--peer-python` has torch. Batches take turns, on the same threads;
the table has the medians.

    python benchmarks/onnx_speed.py --peer-python VENV/bin/python
    python benchmarks/onnx_speed.py --quick
"""

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import onnxruntime
from peers.process import NotInstalledError, Peer
from peers.setting import load_config, where_and_when

import mlimages_jax as mli
from mlimages_jax.convert import weights
from mlimages_jax.convert.to_onnx import Dtype, to_onnx
from mlimages_jax.convert.to_torch import to_torch
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.images.decode import decode
from mlimages_jax.data.records import record_at
from mlimages_jax.inference.model import Model
from mlimages_jax.metrics.multi_label import MultiLabelMetrics
from mlimages_jax.models.resnet import ResNet
from mlimages_jax.training.train import train
from tfds_builders import shapes

CLASSES = 11_166
CONFIDENCE = 0.7  # from which a label is true, as in training
CALIBRATION = 256  # images
BATCH = 128  # of the comparison
FORMS: tuple[tuple[Dtype, bool], ...] = (
    ("float32", False), ("float16", False), ("int8", False), ("float32", True),
)  # fmt: skip
LOSS_ROW = "| {:17} | {:>6} | {:>16} | {:>9} | {:>6} | {:>8} |"
SPEED_ROW = "| {:20} | {:>5} | {:>8} | {:>6} |"
Batch = Callable[[int], float]  # runs so many images; returns seconds


class Val(NamedTuple):
    """The validation images: decoded, cropped, and their targets [n, C]."""

    pixels: np.ndarray
    crops: np.ndarray
    targets: np.ndarray


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workdir", type=Path, help="a finished quickstart; default: train one")
    parser.add_argument("--peer-python", help="an interpreter that has torch")
    parser.add_argument("--stages", type=int, nargs=4, default=[3, 4, 6, 3], metavar="BLOCKS")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="tiny: shows that it works")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.stages, arguments.size, arguments.rounds = [1, 1, 1, 1], 32, 2
    threads = len(os.sched_getaffinity(0))
    print(f"{where_and_when()}; onnxruntime {onnxruntime.__version__}, {threads} threads\n")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        compare(arguments.workdir or trained(work / "quickstart", arguments.quick), work)
        print()
        time_all(arguments, work, threads)


def trained(workdir: Path, quick: bool) -> Path:
    """Trains the quickstart, with its data below the workdir as the command has it."""
    folder = workdir / "data"
    data = shapes.build(folder, num_train=160, num_val=40) if quick else shapes.build(folder)
    changes = {"data.folder": str(data)} | ({"total_steps": 20} if quick else {})
    train(load_config("quickstart", changes), str(workdir))
    return workdir


def compare(workdir: Path, work: Path) -> None:
    """Prints what every form loses on the validation images."""
    (data,) = {path.parent for path in (workdir / "data").rglob("dataset_info.json")}
    model = mli.load(workdir)
    val = read_val(DataSet.open(data), model)
    ours = model.outputs_of(val.crops)["logits"]
    assert model.hierarchy is not None
    paths = model.hierarchy.paths()
    print(LOSS_ROW.format("form", "MB", "logits differ by", "top 5", "mAP", "lost"))
    print("|:--|--:|--:|--:|--:|--:|")
    best = mean_ap(ours, val.targets, paths)
    print(LOSS_ROW.format("JAX", "", "", "", f"{best:.4f}", ""))
    for dtype, uint8_input in FORMS:
        name = f"{dtype}{', uint8 in' if uint8_input else ''}"
        file = export(workdir, work / f"{name}.onnx", dtype, uint8_input, data)
        logits = outputs(file, val.pixels if uint8_input else channels_first(val.crops))
        found = mean_ap(logits, val.targets, paths)
        print(LOSS_ROW.format(
            name, f"{file.stat().st_size / 1e6:.2f}", f"{np.abs(logits - ours).max():.2g}",
            f"{top_agreement(logits, ours):.2%}", f"{found:.4f}", f"{best - found:+.4f}",
        ), flush=True)  # fmt: skip


def read_val(data: DataSet, model: Model) -> Val:
    """Reads the validation set, whose images all have one size."""
    records = data.records("val")
    rows = [record_at(records, i) for i in range(len(records))]
    targets = np.full((len(rows), data.num_classes), data.missing_labels, np.float32)
    for target, row in zip(targets, rows, strict=True):
        target[row.labels] = row.confidences
    pixels = np.stack([decode(row.jpeg) for row in rows])
    return Val(pixels, np.stack([model.view.crop(image) for image in pixels]), targets)


def export(workdir: Path, file: Path, dtype: Dtype, uint8_input: bool, data: Path | None) -> Path:
    """Exports by the command; int8 is calibrated on training images."""
    with contextlib.redirect_stdout(io.StringIO()):
        to_onnx(
            checkpoint=str(workdir), output=file, dtype=dtype, uint8_input=uint8_input,
            calibration_images=str(data) if dtype == "int8" else None,
            calibration_split="train", calibration_count=CALIBRATION,
        )  # fmt: skip
    return file


def channels_first(images: np.ndarray) -> np.ndarray:
    """Turns crops into the input of a network: [N, S, S, 3] -> float32 [N, 3, S, S]."""
    images = images if images.dtype == np.float32 else images * np.float32(2 / 255) - 1
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def outputs(file: Path, images: np.ndarray) -> np.ndarray:
    """Computes the logits of images."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    parts = np.array_split(images, -(-len(images) // BATCH))
    return np.concatenate([session.run(["logits"], {"images": part})[0] for part in parts])


def top_agreement(logits: np.ndarray, ours: np.ndarray) -> float:
    """Returns the mean fraction of our five best classes that are among theirs."""
    theirs, best = (np.argsort(-scores, -1)[:, :5] for scores in (logits, ours))
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(best, theirs, strict=True)]))


def mean_ap(logits: np.ndarray, targets: np.ndarray, paths: np.ndarray) -> float:
    """Returns the mAP over the classes that have positives."""
    metrics = MultiLabelMetrics(targets.shape[1], paths, threshold=CONFIDENCE, exact=True)
    metrics.update(logits, targets, np.ones(len(targets), bool))
    return metrics.compute()["mAP"]


def time_all(arguments: argparse.Namespace, work: Path, threads: int) -> None:
    """Prints images per second of all runtimes, whose batches take turns."""
    network, tree = drawn(arguments)
    workdir = work / "drawn"
    config = {"loss": {"name": "sigmoid"}, "image_size": arguments.size}
    weights.write_workdir(workdir, weights.flat(tree), step=0, config=config)
    images = work / "images"
    shapes.draw(images, num_train=16, num_val=1, size=96)
    with contextlib.ExitStack() as stack:
        runtimes: dict[str, Batch] = {"JAX float32": jax_batch(network, tree, arguments.size)}
        for dtype in ("float32", "float16", "int8"):
            file = work / f"drawn_{dtype}.onnx"
            with contextlib.redirect_stdout(io.StringIO()):
                to_onnx(
                    checkpoint=str(workdir), output=file, dtype=dtype,
                    calibration_images=str(images / "images") if dtype == "int8" else None,
                )  # fmt: skip
            runtimes[f"ONNX Runtime {dtype}"] = onnx_batch(file, arguments.size, threads)
        if arguments.peer_python:
            with contextlib.redirect_stdout(io.StringIO()):
                to_torch(checkpoint=str(workdir), output=work / "torch")
            given = {"folder": str(work / "torch"), "size": arguments.size, "threads": threads}
            peer = Peer("exported_torch", given, python=arguments.peer_python)
            try:
                stack.enter_context(peer)
                runtimes["PyTorch float32"] = lambda n: peer.ask(str(n)).values["seconds"]
            except NotInstalledError as error:
                print(f"without PyTorch: {error}")
        print(SPEED_ROW.format("runtime", "batch", "images/s", "x JAX"))
        print("|:--|--:|--:|--:|")
        for size in arguments.batches:
            for row in speed_rows(runtimes, size, arguments.rounds):
                print(row, flush=True)


def speed_rows(runtimes: dict[str, Batch], size: int, rounds: int) -> Iterator[str]:
    """Times batches of one size in turns, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runtimes}
    for turn in range(rounds + 1):
        for name, run in runtimes.items():
            took = run(size)
            if turn:
                seconds[name].append(took)
    rates = {name: size / statistics.median(times) for name, times in seconds.items()}
    ours = next(iter(rates.values()))
    for name, rate in rates.items():
        yield SPEED_ROW.format(name, size, f"{rate:,.1f}", f"{rate / ours:.2f}")


def drawn(arguments: argparse.Namespace) -> tuple[ResNet, dict]:
    """Returns a network with random weights and the number of classes of ML-Images."""
    network = ResNet(CLASSES, stage_sizes=tuple(arguments.stages))
    images = np.zeros((1, arguments.size, arguments.size, 3), np.float32)
    return network, jax.device_get(jax.jit(network.init)(jax.random.key(0), images))


def jax_batch(network: ResNet, tree: dict, side: int) -> Batch:
    """Returns a function that runs a batch in JAX."""
    step = jax.jit(network.apply)

    def run(size: int) -> float:
        images = np.random.default_rng(0).random((size, side, side, 3), np.float32)
        begin = time.perf_counter()
        jax.block_until_ready(step(tree, images))
        return time.perf_counter() - begin

    return run


def onnx_batch(file: Path, side: int, threads: int) -> Batch:
    """Returns a function that runs a batch in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(size: int) -> float:
        images = np.random.default_rng(0).random((size, 3, side, side), np.float32)
        begin = time.perf_counter()
        session.run(["logits"], {"images": images})
        return time.perf_counter() - begin

    return run


if __name__ == "__main__":
    main()
