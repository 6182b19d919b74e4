# SPDX-License-Identifier: BSD-3-Clause
"""CPU time of decoding JPEG files: full images, windows, and files that builders rewrite.

Runs on one thread, with images of 500x375 pixels made from four photographs. Windows are the crops
of pretraining (70 to 100% of the area) and of finetuning (5 to 100%); the script fails unless they
equal the same part of the fully decoded image. The peers simplejpeg, OpenCV and Pillow decode full
images; simplejpeg also at 7/8 to 4/8 of their size, which suffices for many crops. `marked` files
have restart markers, which a builder adds on request. The second table compares progressive files
with the sequential ones that a builder makes of them.

    python benchmarks/jpeg.py
    python benchmarks/jpeg.py --quick
"""

import argparse
import functools
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from input_pipeline import PHOTOGRAPHS, crop_images
from peers.setting import where_and_when
from PIL import Image

from mlimages_jax.data.images import jpeg, transforms
from mlimages_jax.data.images.decode import decode_box, read_header
from mlimages_jax.data.images.transforms import CropBox

SIZE = 224
BASELINE = "simplejpeg"
AREAS = {"pretraining": (0.7, 1.0), "finetuning": (0.05, 1.0)}


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photographs", type=Path, default=PHOTOGRAPHS)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="fewer images and rounds")
    arguments = parser.parse_args()
    if arguments.quick:
        vars(arguments).update(images=60, rounds=3)
    return arguments


def images(photographs: Path, count: int) -> list[bytes]:
    """Returns JPEG files with halved colour resolution (4:2:0)."""
    with tempfile.TemporaryDirectory() as folder:
        crop_images(photographs, Path(folder), count)
        return [path.read_bytes() for path in sorted(Path(folder).iterdir())]


def progressive(data: bytes) -> bytes:
    """Encodes the image again, as a progressive file."""
    file = io.BytesIO()
    Image.open(io.BytesIO(data)).save(file, "JPEG", quality=90, progressive=True)
    return file.getvalue()


def boxes(files: list[bytes], area: tuple[float, float]) -> list[CropBox]:
    """Draws a crop for each file."""
    headers = [read_header(data) for data in files]
    return [
        transforms.sample_crop(np.random.default_rng(i), header.height, header.width, area=area)
        for i, header in enumerate(headers)
    ]


def check(files: list[bytes], crops: list[CropBox]) -> None:
    """Exits if a window differs from the same part of the full image."""
    for data, box in zip(files, crops, strict=True):
        whole = simplejpeg.decode_jpeg(data)
        expected = whole[box.top : box.top + box.height, box.left : box.left + box.width]
        header = read_header(data)
        if not np.array_equal(jpeg.decode_window(data, header, box), expected):
            raise SystemExit(f"the pixels of window {box} differ from those of the full image")


def measure(ways: dict[str, Callable[[], None]], *, rounds: int, count: int) -> dict[str, float]:
    """Returns the median CPU milliseconds per image of each decoder, measured in turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            start = time.thread_time()  # CPU time, so that other programs do not count
            run()
            times[name].append(1e3 * (time.thread_time() - start) / count)
    return {name: statistics.median(values) for name, values in times.items()}


def each(files: list[bytes], function: Callable[[bytes], object]) -> Callable[[], None]:
    """Returns a function that decodes all files."""

    def run() -> None:
        for data in files:
            function(data)

    return run


def windows(files: list[bytes], crops: list[CropBox]) -> Callable[[], None]:
    """Returns a function that decodes all crops."""

    def run() -> None:
        for data, box in zip(files, crops, strict=True):
            decode_box(data, box, size=SIZE)

    return run


def at_eighths(eighths: int) -> Callable[[bytes], np.ndarray]:
    """Returns a decoder at this many eighths of the size, which libjpeg computes exactly."""

    def decode(data: bytes) -> np.ndarray:
        header = read_header(data)
        height, width = (-(-side * eighths // 8) for side in (header.height, header.width))
        return simplejpeg.decode_jpeg(data, min_height=height, min_width=width)

    return decode


def print_windows(files: list[bytes], rounds: int) -> None:
    """Prints the table of full images and windows."""
    ways: dict[str, Callable[[], None]] = {
        BASELINE: each(files, simplejpeg.decode_jpeg),
        "OpenCV": each(files, lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), 1)),
        "Pillow": each(files, lambda data: np.asarray(Image.open(io.BytesIO(data)))),
    }
    for eighths in (7, 6, 5, 4):
        ways[f"simplejpeg, at {eighths}/8 of the size"] = each(files, at_eighths(eighths))
    marked = [jpeg.sequential(data, restart_markers=True) for data in files]
    for name, area in AREAS.items():
        crops = boxes(files, area)
        for title, stored in (("", files), (", marked", marked)):
            check(stored, crops)
            ways[f"ours, windows of {name}{title}"] = windows(stored, crops)
    marking = functools.partial(jpeg.sequential, restart_markers=True)
    ways["the marking, once"] = each(files, marking)
    results = measure(ways, rounds=rounds, count=len(files))
    print("| decoded | CPU ms | x simplejpeg |\n|:--|---:|---:|")
    for name, value in results.items():
        print(f"| {name} | {value:.3f} | {value / results[BASELINE]:.2f} |")
    print(f"\nMarked files have {sum(map(len, marked)) / sum(map(len, files)):.3f} of the bytes.")


def print_progressive(files: list[bytes], rounds: int) -> None:
    """Prints the table of progressive files."""
    files = [progressive(data) for data in files]
    rewritten = [jpeg.sequential(data) for data in files]
    for before, after in zip(files, rewritten, strict=True):
        if not np.array_equal(simplejpeg.decode_jpeg(before), simplejpeg.decode_jpeg(after)):
            raise SystemExit("a rewritten file has different pixels")
    ways = {
        "progressive": each(files, simplejpeg.decode_jpeg),
        "rewritten": each(rewritten, simplejpeg.decode_jpeg),
        "the rewriting, once": each(files, jpeg.sequential),
    }
    results = measure(ways, rounds=rounds, count=len(files))
    sizes = {"progressive": files, "rewritten": rewritten}
    print("\n| file, quality 90 | kB | CPU ms | x |\n|:--|---:|---:|---:|")
    for name, value in results.items():
        of = sizes.get(name)
        size = f"{statistics.mean(map(len, of)) / 1e3:.1f}" if of else ""
        print(f"| {name} | {size} | {value:.3f} | {value / results['progressive']:.2f} |")


def main() -> None:
    """Measures and prints both tables."""
    arguments = parse_arguments()
    if not jpeg.is_compiled():
        raise SystemExit("the C extension was not built, see mlimages_jax/data/images/jpeg.py")
    cv2.setNumThreads(1)
    files = images(arguments.photographs, arguments.images)
    mean = statistics.mean(map(len, files)) / 1e3
    print(f"{where_and_when()}; {len(files)} images of {mean:.1f} kB\n")
    print_windows(files, arguments.rounds)
    print_progressive(files, arguments.rounds)


if __name__ == "__main__":
    main()
