# SPDX-License-Identifier: BSD-3-Clause
"""Images per second and per CPU second, memory and quality of our input and of its peers.

Compares ours (ArrayRecord, Grain, libjpeg-turbo, OpenCV) with tf.data (TFRecord, fused decode and
crop), PyTorch's DataLoader with Pillow (image files, as in timm), NVIDIA DALI's pipeline on the CPU
(fused decode and crop) and SPDL (threads over FFmpeg), on the same JPEG files and with the same
distribution of crops. The contenders run one after the other, each in a fresh process in every
round. The last column is quality: PSNR of 200 fixed crops against a float32 resize of the
decoded original with a triangle filter. '320' reads images that were shrunk to this short side when
the data set was built, with colour in full resolution or halved (4:2:0); the peers read the same
files. 'marked' has the restart markers that a builder adds on request. 'whole' is ours without the
C extension: it decodes full images. 'in workers' reads in worker processes instead of threads.

Grain's shuffle draws until the index falls into the set, which costs more per image in a set of
hundreds than in one of millions. With few images ours therefore looks slower than it is.

    python benchmarks/input_pipeline.py                     # crops of four photographs
    python benchmarks/input_pipeline.py --images FOLDER   # any JPEG files
    python benchmarks/input_pipeline.py --area 0.05 1       # the crops of finetuning
    python benchmarks/input_pipeline.py --quick             # four rows, one round

A peer whose libraries are missing is skipped with a message. Those of tf.data, DALI and SPDL may
be installed for another interpreter (--peer_python tf_data=PYTHON dali_input=PYTHON). SPDL needs
the libraries of FFmpeg. Memory is measured on Linux.
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from peers.process import NotInstalledError, Peer
from PIL import Image

from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.images import transforms
from mlimages_jax.data.images.decode import read_header
from mlimages_jax.data.records import parse_record
from tfds_builders import ml_images

PHOTOGRAPHS = Path(__file__).resolve().parents[2] / "shared/data/tencent/images"
IMAGE = (500, 375)  # pixels: the commonest size in ImageNet
JPEG_QUALITY = 97
PORTRAITS = 0.25  # fraction of images in portrait format
NUM_LABELS = 9  # per image; ML-Images has 8.7 on average
NUM_CLASSES = 11_166
BASELINE = "tf.data"
WORKERS = "ours, linear, original, in workers"
TORCH = "torch DataLoader + Pillow"
DALI, SPDL = "DALI, CPU", "SPDL, FFmpeg"
QUICK = ("ours, linear, original", "ours, linear, 320 4:2:0", BASELINE, TORCH)
COMPARED = 200  # crops whose quality is measured
ROW = "{:36} {:>8} {:>9} {:>8} {:>8} {:>8} {:>6} {:>8}"


class Contender(NamedTuple):
    """A row of the table: its name, module in `peers`, arguments, and the boxes to crop."""

    name: str
    module: str
    arguments: dict[str, Any]
    boxes: list[Any]


class Stored(NamedTuple):
    """The images in one stored form.

    Attributes:
        title: Name of the form.
        data: Folder of the built set.
        images: Folder with the same JPEGs as files.
        boxes: Pairs of a name and the box (top, left, height, width) to compare, in stored pixels.
        in_originals: The same boxes in pixels of the original images.
    """

    title: str
    data: Path
    images: Path
    boxes: list[Any]
    in_originals: list[Any]


class Measurement(NamedTuple):
    """One contender in one round."""

    rate: float  # images per second
    cpu_rate: float  # images per CPU second
    peak_bytes: int


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, help="a folder of JPEG files, used as they are")
    parser.add_argument(
        "--photographs", type=Path, default=PHOTOGRAPHS, help="large JPEGs to take crops from"
    )
    parser.add_argument("--count", type=int, default=2000, help="images to crop")
    parser.add_argument("--area", type=float, nargs=2, default=(0.7, 1.0), metavar=("MIN", "MAX"))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="per measurement")
    parser.add_argument("--warm_up", type=float, default=4.0, help="seconds before each")
    parser.add_argument("--only", nargs="+", default=[""], help="text in the rows' names")
    parser.add_argument("--peer_python", nargs="*", default=[], metavar="MODULE=PYTHON")
    parser.add_argument("--quick", action="store_true", help="few images, rows and seconds")
    arguments = parser.parse_args()
    if arguments.quick:
        quick = {"count": 300, "rounds": 1, "seconds": 3.0, "warm_up": 2.0}
        vars(arguments).update(quick)
    return arguments


def crop_images(photographs: Path, folder: Path, count: int) -> None:
    """Writes JPEGs of 500x375 or 375x500 pixels, made from regions of all sizes."""
    files = sorted(photographs.glob("*.jpg"))
    if not files:
        raise SystemExit(
            f"{photographs} has no .jpg files: pass --photographs with a folder of large ones "
            "(such as the four of the ML-Images release), or --images with a folder of JPEG files"
        )
    originals = [Image.open(file).convert("RGB") for file in files]
    rng = np.random.default_rng(0)
    for i in range(count):
        original = originals[i % len(originals)]
        width, height = IMAGE if rng.random() > PORTRAITS else IMAGE[::-1]
        largest = min(original.width / width, original.height / height)
        scale = max(1.0, rng.uniform(1, largest))
        left = rng.uniform(0, original.width - scale * width)
        top = rng.uniform(0, original.height - scale * height)
        box = (left, top, left + scale * width, top + scale * height)
        image = original.resize((width, height), Image.Resampling.BILINEAR, box=box)
        image.save(folder / f"{i:05d}.jpg", quality=JPEG_QUALITY)  # 4:2:0


def write_lists(folder: Path) -> None:
    """Writes the class list and the label list next to `images`."""
    rows = [f"{i}\tn{i:08d}\t-1\tclass {i}" for i in range(NUM_CLASSES)]
    header = "category_index\tcategory_id\tindex_of_parent_category\tcategory name"
    (folder / "dictionary.txt").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    labels = "\t".join(f"{i}:1" for i in range(NUM_LABELS))
    names = sorted(path.name for path in (folder / "images").iterdir())
    lines = [f"{name}\t{labels}" for name in names]
    (folder / "train_image_list.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def store(work: Path, title: str, *, area: list[float], **form: Any) -> Stored:
    """Builds a set of the images in `work`, and writes its JPEGs as files for the peers.

    Box i is what generator i draws for stored image i. If the stored image was shrunk, the same box
    has fractional coordinates in the original.

    Args:
        work: Folder with `images` and the lists.
        title: Name of the form.
        area: Smallest and largest area of the crops, as fractions of the image.
        form: Arguments of the builder.
    """
    with contextlib.redirect_stdout(sys.stderr):  # TFDS prints progress
        data = ml_images.build(work, work / "data", name="images", **form)
    images = work / "files" / data.parent.name
    images.mkdir(parents=True)
    records = DataSet.open(data).records("train")
    boxes, in_originals = [], []
    for i in range(len(records)):
        record = parse_record(records[i])
        (images / record.name).write_bytes(record.jpeg)
        if i < COMPARED:
            height, width = read_header(record.jpeg)[2:0:-1]
            rng = np.random.default_rng(i)
            box = transforms.sample_crop(rng, height, width, area=(area[0], area[1]))
            original = read_header((work / "images" / record.name).read_bytes())
            down, across = original.height / height, original.width / width
            scaled = (box.top * down, box.left * across, box.height * down, box.width * across)
            boxes.append((record.name, box))
            in_originals.append((record.name, scaled))
    return Stored(title, data, images, boxes, in_originals)


def reference(file: Path, box: tuple[float, float, float, float], size: int) -> np.ndarray:
    """Returns the box, decoded with the accurate DCT and resized in float32, triangle filter."""
    top, left, height, width = box
    bands = Image.open(file).convert("RGB").split()
    edges = (left, top, left + width, top + height)
    resized = [
        band.convert("F").resize((size, size), Image.Resampling.BILINEAR, box=edges)
        for band in bands
    ]
    return np.stack([np.asarray(band) for band in resized], -1)


def psnr(crops: np.ndarray, boxes: list[Any], images: Path) -> float:
    """Returns the mean over the images of 10 log10(255^2 / mean squared difference), in dB."""
    values = []
    for image, (name, box) in zip(crops, boxes, strict=True):
        difference = image - reference(images / name, box, crops.shape[1])
        values.append(10 * np.log10(255**2 / np.square(difference).mean()))
    return float(np.mean(values))


def contenders(arguments: argparse.Namespace, work: Path) -> list[Contender]:
    """Builds the data sets and returns the rows of the table."""
    common = {name: getattr(arguments, name) for name in ("area", "size", "batch", "workers")}
    common |= {name: getattr(arguments, name) for name in ("warm_up", "seconds")}
    common |= {"crops": str(work / "crops.npy")}
    original = store(work, "original", area=arguments.area, short_side=None)
    full = store(work, "320", area=arguments.area, short_side=320)
    half = store(work, "320 4:2:0", area=arguments.area, short_side=320, chroma="420")
    marked = store(
        work, "original, marked", area=arguments.area, short_side=None, restart_markers=True
    )
    result: list[Contender] = []

    def add(name: str, module: str, stored: Stored, **own: Any) -> None:
        own |= {"folder": str(stored.data), "images": str(stored.images), "boxes": stored.boxes}
        own |= {"tfrecord": str(work / f"{stored.images.name}.tfrecord")}
        result.append(Contender(name, module, common | own, stored.in_originals))

    for interpolation in ("linear", "area"):
        for stored in (original, marked, full, half):
            name = f"ours, {interpolation}, {stored.title}"
            add(name, "ours_input", stored, interpolation=interpolation)
    add("ours, linear, original, whole", "ours_input", original, interpolation="linear", whole=True)
    add(WORKERS, "ours_input", original, interpolation="linear", processes=True)
    add(BASELINE, "tf_data", original, antialias=False)
    add(f"{BASELINE}, antialiased", "tf_data", original, antialias=True)
    add(f"{BASELINE}, 320 4:2:0", "tf_data", half, antialias=False)
    add(TORCH, "torch_loader", original)
    add(f"{TORCH}, 320 4:2:0", "torch_loader", half)
    for name, module in ((DALI, "dali_input"), (SPDL, "spdl_input")):
        add(name, module, original)
        add(f"{name}, 320 4:2:0", module, half)
    if arguments.quick:
        return [row for row in result if row.name in QUICK]
    return [row for row in result if any(part in row.name for part in arguments.only)]


def measure(contender: Contender, python: str) -> tuple[Measurement, str]:
    """Runs a contender once and saves its crops; returns also the version of its library."""
    without_gpu = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"}
    with Peer(
        contender.module, contender.arguments, python=python, environment=without_gpu
    ) as peer:
        answer = peer.ask("measure")
        peer.ask("quality")  # last: the answer before it has the peak memory
    images = answer.values["images"]
    rate = images / answer.values["seconds"]
    measurement = Measurement(rate, images / answer.cpu_seconds, answer.peak_bytes)
    return measurement, peer.about["version"]


def print_row(name: str, own: list[Measurement], base: list[Measurement], quality: float) -> None:
    """Prints medians over the rounds; ratios to the baseline are medians of per-round ratios."""

    def ratio(field: str) -> str:
        pairs = zip(own, base, strict=False)
        ratios = [getattr(mine, field) / getattr(other, field) for mine, other in pairs]
        return f"{statistics.median(ratios):.2f}" if ratios else "-"

    rate, cpu_rate, peak = (statistics.median(column) for column in zip(*own, strict=True))
    cells = f"{rate:.0f}", ratio("rate"), f"{cpu_rate:.0f}", ratio("cpu_rate")
    memory = f"{peak / 1e6:.0f}", ratio("peak_bytes")
    print(ROW.format(name, *cells, *memory, f"{quality:.1f}"))


def main() -> None:
    """Makes the data, runs the rounds and prints the table."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        images = work / "images"
        if arguments.images:
            images.symlink_to(arguments.images.resolve())
        else:
            images.mkdir()
            crop_images(arguments.photographs, images, arguments.count)
        sizes = [path.stat().st_size for path in images.iterdir()]
        print(f"{len(sizes)} images, {statistics.mean(sizes) / 1e3:.1f} kB each on average")
        write_lists(work)
        compare(contenders(arguments, work), arguments, images)


def compare(rows: list[Contender], arguments: argparse.Namespace, images: Path) -> None:
    """Runs the contenders in rounds and prints the table."""
    pythons = dict(one.split("=", 1) for one in arguments.peer_python)
    results: dict[str, list[Measurement]] = {row.name: [] for row in rows}
    quality: dict[str, float] = {}
    for round_number in range(arguments.rounds):
        for row in list(rows):
            python = pythons.get(row.module, sys.executable)
            try:
                measurement, version = measure(row, python)
            except NotInstalledError as error:
                print(f"{row.name}: skipped: {error}")
                rows.remove(row)
                continue
            results[row.name].append(measurement)
            if round_number == 0:
                crops = np.load(row.arguments["crops"])
                quality[row.name] = psnr(crops, row.boxes, images)
                print(f"{row.name}: {version}, load {os.getloadavg()[0]:.1f}", flush=True)
    titles = ("images/s", "x tf.data", "per CPU s", "x", "MB", "x", "PSNR dB")
    print(f"\nload at the end {os.getloadavg()[0]:.1f}")
    print(ROW.format("", *titles))
    for name, quality_db in quality.items():
        print_row(name, results[name], results.get(BASELINE, []), quality_db)


if __name__ == "__main__":
    main()
