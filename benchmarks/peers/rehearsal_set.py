# SPDX-License-Identifier: BSD-3-Clause
"""Writes lists and images of any number in the shape of ML-Images, for rehearsal.py.

    python -m peers.rehearsal_set lists --folder F --images 200000
    python -m peers.rehearsal_set images --folder F --images 200000

`lists` writes what is published: a class list of 11,166 classes, and URLs with labels for train and
val. `images` writes what `download --shards` leaves: image shards of tiny JPEGs, each with bytes of
its own, and manifests that also have failed URLs, one per ten images.
"""

import argparse
import contextlib
import hashlib
import io
import itertools
import shutil
import time
from pathlib import Path

import numpy as np
from list_statistics import write_hierarchy  # in the folder of rehearsal.py, which starts this
from PIL import Image as PillowImage

from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.image_shards.layout import Layout, settle_layout
from mlimages_jax.image_shards.outcome import FAILED, OK, Image
from mlimages_jax.image_shards.writer import FULL, OpenShard
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.prepare.storing import file_name

SIDE = 16  # pixels
BASES = 256  # images with distinct pixels
VAL_EVERY = 100  # 1% of the images, which are also those whose features are exported
FAILED_PER_IMAGES = 10  # a failed URL per this many images
LABEL_SETS = 50_000  # distinct sets of labels, from which images draw
MEAN_LABELS = 8.7
CANDIDATES = 16  # classes drawn for a row, of which the first ones are used
PARTS = 64  # of the image shards


def all_rows(images: int) -> int:
    """Returns the number of rows of the lists; those from `images` on are of failed URLs."""
    return images + images // FAILED_PER_IMAGES


def split_of(number: int) -> str:
    """Returns the split of a row."""
    return "val" if number % VAL_EVERY == VAL_EVERY - 1 else "train"


def url(number: int) -> str:
    """Returns the URL of an image, like those of Open Images' part of ML-Images."""
    code = (number * 2_654_435_761 + 97) % (1 << 40)
    return (
        f"https://farm{1 + number % 8}.staticflickr.com/{number % 9973}/"
        f"{10_000_000_000 + number}_{code:010x}_o.jpg"
    )


def label_sets(hierarchy: Hierarchy, *, seed: int = 0) -> list[str]:
    """Returns the labels of rows, closed under ancestors, as text that follows a name.

    Classes are drawn with a long tail: that of rank r in proportion to 1 / (r + 20).
    """
    rng = np.random.default_rng(seed)
    classes = len(hierarchy)
    weights = 1 / (np.arange(classes) + 20)
    ranks = rng.choice(classes, (LABEL_SETS, CANDIDATES), p=weights / weights.sum())
    drawn = rng.permutation(classes)[ranks].tolist()
    wanted = 1 + rng.poisson(MEAN_LABELS - 5, LABEL_SETS)  # the last class adds its path as well
    paths = [[c for c in path if c >= 0] for path in hierarchy.paths().tolist()]
    return [_labels(row, count, paths) for row, count in zip(drawn, wanted, strict=True)]


def _labels(classes: list[int], count: int, paths: list[list[int]]) -> str:
    labels: dict[int, None] = {}
    for number in classes:
        labels.update(dict.fromkeys(paths[number]))
        if len(labels) >= count:
            break
    return "".join(f"\t{number}:1" for number in labels)


def write_lists(folder: Path, images: int) -> None:
    """Writes dictionary.txt, train_urls.txt and val_urls.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = label_sets(write_hierarchy(folder / "dictionary.txt"))
    with contextlib.ExitStack() as stack:
        files = {
            split: stack.enter_context((folder / f"{split}_urls.txt").open("w", newline="\n"))
            for split in ("train", "val")
        }
        for number in range(all_rows(images)):
            labels = texts[number * 7919 % LABEL_SETS]
            files[split_of(number)].write(f"{url(number)}{labels}\n")


def tiny_jpegs() -> list[bytes]:
    """Encodes images of 16 x 16 pixels of some 400 bytes; the start marker is left out."""
    rng = np.random.default_rng(0)
    jpegs = []
    for _ in range(BASES):
        coarse = rng.integers(0, 256, (4, 4, 3)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
        file = io.BytesIO()
        PillowImage.fromarray(coarse).save(file, "JPEG", quality=75, optimize=True)
        jpegs.append(file.getvalue()[2:])
    return jpegs


def jpeg(number: int, bases: list[bytes]) -> bytes:
    """Returns a JPEG whose comment (ITU-T T.81, B.2.4.5) makes its bytes those of one number."""
    text = f"{number:012d}".encode()
    return b"\xff\xd8\xff\xfe\x00\x0e" + text + bases[number % len(bases)]


def write_images(folder: Path, images: int) -> None:
    """Writes image shards: those of images first, then those of failed URLs alone."""
    bases = tiny_jpegs()
    place, scratch = ObjectFolder(folder), folder / "scratch"
    shutil.rmtree(folder / "shards", ignore_errors=True)  # of a step that was interrupted
    scratch.mkdir(parents=True, exist_ok=True)
    settle_layout(place, Layout(PARTS, "host"))
    numbers = iter(range(all_rows(images)))
    for count in itertools.count():
        rows = list(itertools.islice(numbers, FULL.images))
        if not rows:
            break
        part = Layout(PARTS, "host").part_name(count % PARTS)
        shard = OpenShard(scratch, f"{part}-rehearsal-{count:05d}")
        for number in rows:
            shard.add(*(_stored(number, bases) if number < images else _failed(number)))
        shard.commit(place)
    scratch.rmdir()


def _stored(number: int, bases: list[bytes]) -> tuple[Image, bytes]:
    data, name = jpeg(number, bases), url(number)
    return Image(
        name=name, status=OK, time=time.time(), file=file_name(name), source="list",
        http_status=200, num_bytes=len(data), sha256=hashlib.sha256(data).digest(), width=SIDE,
        height=SIDE,
    ), data  # fmt: skip


def _failed(number: int) -> tuple[Image, None]:
    return Image(
        name=url(number), status=FAILED, time=time.time(), http_status=404, error="http_404",
        message="list: HTTP 404 Not Found",
    ), None  # fmt: skip


def main() -> None:
    """Writes what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("lists", "images"))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--images", type=int, required=True)
    arguments = parser.parse_args()
    write = {"lists": write_lists, "images": write_images}[arguments.what]
    write(arguments.folder, arguments.images)


if __name__ == "__main__":
    main()
