# SPDX-License-Identifier: BSD-3-Clause
"""Cost and size of an image when a data set is built: stored unchanged, and at short side 320.

Builds the same images with `tfds_builders.ml_images` and with two peers. Pillow decodes, shrinks
(bicubic, its default), encodes at the same quality and writes TFRecord-like files with the same
number of threads. TFDS's GeneratorBasedBuilder stores its input without checking it. Every build
runs in a fresh process, in every round. CPU seconds are user plus system time of all threads,
without imports. A second table breaks down our time by stage, on one thread, and extrapolates to
the 17,609,752 images of ML-Images.

    python benchmarks/builders.py                      # crops of four photographs
    python benchmarks/builders.py --images FOLDER    # any JPEG files
    python benchmarks/builders.py --base CHECKOUT    # also the builder of another commit, in turns

Without photographs it draws images, which are smaller and cheaper to process: then only the ratios
are meaningful. The base is run in this environment, with its own C extension if that was built.
"""

import argparse
import concurrent.futures
import contextlib
import io
import json
import os
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import simplejpeg
import tensorflow_datasets as tfds
from input_pipeline import PHOTOGRAPHS, crop_images, write_lists
from PIL import Image

from mlimages_jax.data.images import decode, shrinking
from mlimages_jax.files.checksums import sha256
from mlimages_jax.files.record_writer import RecordWriter
from mlimages_jax.labels.lists import LabelRow, read_label_list
from tfds_builders import ml_images, shapes
from tfds_builders.images import records

NUM_ML_IMAGES = 17_609_752
SHORT_SIDE = 320
ROW = "{:40} {:>10} {:>8} {:>8} {:>10} {:>10} {:>10} {:>6}"
TITLES = ("CPU ms", "x Pillow", "per CPU s", "images/s", "kB stored", "TB for all", "CPU h")
OURS, VERIFIED = "ours", "ours, --verified"
PILLOW, TFDS = "Pillow, TFRecord-like", "TFDS generator, unchecked"
HERE = Path(__file__).resolve().parent.parent
CONTENDERS = [
    (OURS, None), (VERIFIED, None), (PILLOW, None), (TFDS, None), (OURS, SHORT_SIDE),
    (PILLOW, SHORT_SIDE),
]  # fmt: skip
AGAINST_BASE = [(OURS, None), (VERIFIED, None), (OURS, SHORT_SIDE)]


class Measurement(NamedTuple):
    """One build: seconds, CPU seconds, and bytes of the record files."""

    seconds: float
    cpu_seconds: float
    file_bytes: int


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, help="a folder of JPEG files, used as they are")
    parser.add_argument(
        "--photographs", type=Path, default=PHOTOGRAPHS, help="large JPEGs to take crops from"
    )
    parser.add_argument("--count", type=int, default=2000, help="images to crop or draw")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="threads")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--base", type=Path, help="a checkout of another commit to compare with")
    parser.add_argument("--child", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--short_side", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def make_images(arguments: argparse.Namespace, work: Path) -> str:
    """Fills `work` with `images/` and lists; returns a description of the images."""
    images = work / "images"
    if arguments.images:
        images.symlink_to(arguments.images.resolve())
        kind = f"from {arguments.images}"
    elif arguments.photographs.is_dir():
        images.mkdir()
        crop_images(arguments.photographs, images, arguments.count)
        kind = "crops of photographs"
    else:
        drawn = shapes.draw(work / "drawn", num_train=arguments.count, num_val=1, size=500)
        images.symlink_to(drawn / "images")
        kind = "drawn (no photographs available)"
    write_lists(work)
    return kind


def build_ours(work: Path, out: Path, short_side: int | None, workers: int) -> Path:
    """Builds with this repository's builder; returns the folder with the records."""
    return ml_images.build(work, out, short_side=short_side, threads=workers)


def build_verified(work: Path, out: Path, short_side: int | None, workers: int) -> Path:
    """Builds likewise, from images that `mlimages data` has already verified."""
    return ml_images.build(work, out, short_side=short_side, threads=workers, verified=True)


def build_with_pillow(work: Path, out: Path, short_side: int | None, workers: int) -> Path:
    """Builds with Pillow; records have a length and a checksum, as in TFRecord files."""

    def example(row: LabelRow) -> bytes:
        data = (work / "images" / row.name).read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            width, height = image.size
            if short_side and min(image.size) > short_side:
                scale = short_side / min(image.size)
                width, height = round(width * scale), round(height * scale)
                file = io.BytesIO()
                image.resize((width, height)).save(
                    file, "JPEG", quality=decode.JPEG_QUALITY, subsampling=0
                )
                data = file.getvalue()
        return records.serialize(row, decode.StoredImage(data, height, width))

    rows = read_label_list(work / "train_image_list.txt", num_classes=1 << 20)
    out.mkdir()
    with (
        concurrent.futures.ThreadPoolExecutor(workers) as pool,
        (out / "train.tfrecord").open("wb") as file,
    ):
        for record in pool.map(example, rows):
            length = struct.pack("<Q", len(record))
            file.write(length + struct.pack("<I", zlib.crc32(length)))
            file.write(record + struct.pack("<I", zlib.crc32(record)))
    return out


def build_with_tfds(work: Path, out: Path, short_side: int | None, workers: int) -> Path:
    """Builds with TFDS's GeneratorBasedBuilder: one thread, no image is decoded."""
    assert short_side is None, "this peer stores files unchanged"

    class Generated(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> tfds.core.DatasetInfo:
            return tfds.core.DatasetInfo(builder=self, features=records.features())

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[str, dict[str, Any]]]:
            for name, labels, confidences in rows:
                image = work / "images" / name
                header = decode.read_header(image.read_bytes())
                yield name, {
                    "image": image, "name": name, "labels": labels, "confidences": confidences,
                    "height": header.height, "width": header.width,
                }  # fmt: skip

    rows = read_label_list(work / "train_image_list.txt", num_classes=1 << 20)
    builder = Generated(data_dir=os.fspath(out), file_format="array_record")
    builder.download_and_prepare()
    return Path(builder.data_path)


BUILDS: dict[str, Callable[[Path, Path, int | None, int], Path]] = {
    OURS: build_ours,
    VERIFIED: build_verified,
    PILLOW: build_with_pillow,
    TFDS: build_with_tfds,
}


def measure_here(name: str, work: Path, short_side: int | None, workers: int) -> Measurement:
    """Measures one build in this process."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        os.sync()  # or what an earlier build wrote costs this one system time
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        with contextlib.redirect_stdout(sys.stderr):  # TFDS prints progress
            built = BUILDS[name](work, Path(folder) / "out", short_side, workers)
        seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        size = sum(path.stat().st_size for path in built.glob("*record*"))
    return Measurement(seconds, cpu, size)


def measure(
    name: str, work: Path, short_side: int | None, workers: int, checkout: Path = HERE
) -> Measurement:
    """Measures one build in a fresh process, with the code of a checkout."""
    script = checkout / "benchmarks" / "builders.py"
    command = [
        sys.executable, os.fspath(script), "--child", name, os.fspath(work),
        f"--workers={workers}",
    ]  # fmt: skip
    if short_side:
        command.append(f"--short_side={short_side}")
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.fspath(checkout)},
    )  # fmt: skip
    return Measurement(*json.loads(done.stdout))


def stages(work: Path, short_side: int | None, count: int) -> dict[str, float]:
    """Returns CPU milliseconds per image of each of our stages, on one thread; best of three."""
    rows = list(read_label_list(work / "train_image_list.txt", num_classes=1 << 20))[:count]
    files = [work / "images" / row.name for row in rows]
    found: dict[str, float] = {}

    def stage(name: str, function: Callable[..., Any], *columns: Any) -> list[Any]:
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            results = [function(*values) for values in zip(*columns, strict=True)]
            best = min(best, time.process_time() - start)
        found[name] = 1e3 * best / len(rows)
        return results

    data = stage("read the file", Path.read_bytes, files)
    headers = stage("read its header", decode.read_header, data)
    if short_side is None:
        stage("decode as a check", decode.verify, data)
        stored = [decode.StoredImage(*pair) for pair in zip(data, *_sizes(headers), strict=True)]
    else:
        sizes = [shrinking.shrunken_size(h.height, h.width, short_side=short_side) for h in headers]
        heights, widths = zip(*sizes, strict=True)
        pixels = stage(
            "decode", lambda d, h, w: decode.decode(d, min_height=2 * h, min_width=2 * w),
            data, heights, widths,
        )  # fmt: skip
        pixels = stage("shrink", shrinking.shrink, pixels, heights, widths)
        jpegs = stage("encode", _encode, pixels)
        stored = [
            decode.StoredImage(*values) for values in zip(jpegs, heights, widths, strict=True)
        ]
    examples = stage("make the record", records.serialize, rows, stored)
    path = work / "stage.array_record"
    stage("write it", _write, [examples], [path])
    stage("hash the file", sha256, [path])
    path.unlink()
    return found


def _sizes(headers: list[decode.ImageHeader]) -> tuple[list[int], list[int]]:
    return [header.height for header in headers], [header.width for header in headers]


def _encode(pixels: Any) -> bytes:
    return simplejpeg.encode_jpeg(
        pixels, quality=decode.JPEG_QUALITY, colorspace="RGB", colorsubsampling="444"
    )


def _write(examples: list[bytes], path: Path) -> None:
    writer = RecordWriter(path)
    for example in examples:
        writer.write(example)
    writer.close()


def print_row(name: str, count: int, runs: list[Measurement], baseline: list[Measurement]) -> None:
    """Prints medians over the rounds; the ratio is the median of the per-round ratios."""
    cpu = statistics.median(run.cpu_seconds for run in runs) / count
    rate = count / statistics.median(run.seconds for run in runs)
    pairs = zip(runs, baseline, strict=True)
    ratio = statistics.median(ours.cpu_seconds / other.cpu_seconds for ours, other in pairs)
    size = runs[0].file_bytes / count
    print(
        ROW.format(
            name, f"{1e3 * cpu:.2f}", f"{ratio:.2f}", f"{1 / cpu:.0f}", f"{rate:.0f}",
            f"{size / 1e3:.1f}", f"{size * NUM_ML_IMAGES / 1e12:.2f}",
            f"{cpu * NUM_ML_IMAGES / 3600:.1f}",
        )
    )  # fmt: skip


def main() -> None:
    """Makes the images, runs the builds in rounds and prints both tables."""
    arguments = parse_arguments()
    if arguments.child:
        name, folder = arguments.child
        result = measure_here(name, Path(folder), arguments.short_side, arguments.workers)
        print(json.dumps(result))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        kind = make_images(arguments, work)
        sizes = [path.stat().st_size for path in (work / "images").iterdir()]
        count = len(sizes)
        print(f"{count} images, {kind}, {statistics.mean(sizes) / 1e3:.1f} kB each on average;")
        print(f"{arguments.workers} threads, load at the start {os.getloadavg()[0]:.1f}")
        contenders = [(HERE, *contender) for contender in CONTENDERS]
        if arguments.base:
            contenders += [(arguments.base.resolve(), *contender) for contender in AGAINST_BASE]
        results: dict[tuple[Path, str, int | None], list[Measurement]]
        results = {contender: [] for contender in contenders}
        for _ in range(arguments.rounds):
            for checkout, name, short_side in contenders:
                run = measure(name, work, short_side, arguments.workers, checkout)
                results[checkout, name, short_side].append(run)
        print(f"load at the end {os.getloadavg()[0]:.1f}; medians of {arguments.rounds} rounds\n")
        print(ROW.format("", *TITLES))
        for (checkout, name, short_side), runs in results.items():
            title = f"{name}, {short_side or 'original'}{'' if checkout == HERE else ', base'}"
            print_row(title, count, runs, results[HERE, PILLOW, short_side])
        for short_side in (None, SHORT_SIDE):
            found = stages(work, short_side, min(count, 400))
            print(f"\nours, {short_side or 'original'}: CPU ms per image on one thread")
            for name, value in found.items():
                print(f"  {name:20} {value:6.3f}  {value / sum(found.values()):4.0%}")
            print(f"  {'total':20} {sum(found.values()):6.3f}")


if __name__ == "__main__":
    main()
