# SPDX-License-Identifier: BSD-3-Clause
"""Question: how fast are images extracted from nested archives, all of them or one in a hundred?

Packs images of 500x375 into a tar with one inner tar per synset, as ImageNet is distributed, and
extracts them by a list. The peer is the script that people usually write: tarfile opens every inner
tar, Pillow decodes the wanted images as a check, and each is written to a file. Both run in fresh
processes, start-up included, with the archive in the page cache. --base also measures `extract` of
another commit.

    python benchmarks/extract.py
    python benchmarks/extract.py --base CHECKOUT
"""

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from input_pipeline import PHOTOGRAPHS, crop_images
from PIL import Image

from tfds_builders import shapes

PER_SYNSET = 40


def make_archive(folder: Path, count: int) -> tuple[Path, list[str]]:
    """Makes the archive; returns its path and the names of its images as in a list."""
    images = folder / "images"
    if PHOTOGRAPHS.is_dir():
        images.mkdir()
        crop_images(PHOTOGRAPHS, images, count)
    else:
        shapes.draw(folder / "drawn", num_train=count, num_val=1, size=400)
        images = folder / "drawn" / "images"
    files = sorted(path for path in images.rglob("*") if path.is_file())[:count]
    names = []
    with tarfile.open(folder / "whole.tar", "w") as outer:
        for start in range(0, len(files), PER_SYNSET):
            synset = f"n{start:08d}"
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as tar:
                for number, path in enumerate(files[start : start + PER_SYNSET]):
                    tar.add(path, f"{synset}_{number}.JPEG")
                    names.append(f"{synset}/{synset}_{number}.JPEG")
            header = tarfile.TarInfo(f"{synset}.tar")
            header.size = inner.tell()
            inner.seek(0)
            outer.addfile(header, inner)
    return folder / "whole.tar", names


def extract_plainly(archive: Path, wanted_list: Path, output: Path) -> None:
    """Extracts with tarfile and Pillow, as a peer."""
    wanted = {line.split()[0] for line in wanted_list.read_text().splitlines()}
    with tarfile.open(archive) as outer:
        for synset in outer:
            with tarfile.open(fileobj=outer.extractfile(synset)) as inner:
                for member in inner:
                    name = f"{synset.name.removesuffix('.tar')}/{member.name}"
                    file = inner.extractfile(member)
                    if name not in wanted or file is None:
                        continue
                    data = file.read()
                    Image.open(io.BytesIO(data)).load()
                    path = output / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(data)


def seconds(command: list[str]) -> float:
    """Returns the duration of a command, start-up included."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Measures both and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=8000, help="images in the archive")
    parser.add_argument("--base", type=Path, help="a checkout of another commit")
    parser.add_argument("--plainly", nargs=3, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plainly:
        extract_plainly(*arguments.plainly)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive, names = make_archive(folder, arguments.count)
        size = archive.stat().st_size / 1e6
        print(f"{len(names):,} images, {size:.0f} MB; load {os.getloadavg()[0]:.1f}\n")
        print("|              | wanted | seconds | images/s | MB/s | x tarfile |")
        print("|--------------|-------:|--------:|-----------:|-----:|----------:|")
        for step in (1, 100):
            wanted = folder / f"wanted_{step}.txt"
            wanted.write_text("".join(f"{name}  0:1\n" for name in names[::step]))
            # One in a hundred shows the cost of passing over all others.
            ours = [sys.executable, "-m", "mlimages_jax.prepare", "extract", str(archive),
                    "--lists", str(wanted), "--output", str(folder / f"ours_{step}")]  # fmt: skip
            peer = [sys.executable, __file__, "--plainly", *map(str, (archive, wanted)),
                    str(folder / f"peer_{step}")]  # fmt: skip
            times = {"extract": seconds(ours), "tarfile, Pillow": seconds(peer)}
            if arguments.base:
                base = ["env", f"PYTHONPATH={arguments.base.resolve()}", *ours[:-1]]
                times["extract, base"] = seconds([*base, str(folder / f"base_{step}")])
            count = len(names[::step])
            for title, spent in times.items():
                print(
                    f"| {title} | {count:,} | {spent:.1f} | {count / spent:,.0f} "
                    f"| {size / spent:,.0f} | {times['tarfile, Pillow'] / spent:.2f} |"
                )


if __name__ == "__main__":
    main()
