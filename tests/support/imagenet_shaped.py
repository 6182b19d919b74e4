# SPDX-License-Identifier: BSD-3-Clause
"""ImageNet's two archives and the file of validation labels, with few images of a few classes."""

import collections
from pathlib import Path

import numpy as np

from tests.support import image_files, imagenet_archives
from tfds_builders import imagenet
from tfds_builders.imagenet import manual_files

CLASSES, TRAIN, VAL = 5, 9, 4  # images a class


def write_archives(folder: Path, stamps: Path | None) -> None:
    """Writes the three files that the builder asks for.

    Args:
        folder: where to.
        stamps: a folder of the stamps, or None for images drawn here.
    """
    train, val, truth = {}, {}, []
    for number, images in enumerate(_stamps(stamps) if stamps else _drawn()):
        synset = f"n{number + 1:08d}"
        train[synset] = {f"{synset}_{i}.JPEG": data for i, data in enumerate(images[:TRAIN])}
        for data in images[TRAIN:]:
            truth.append(synset)
            val[f"ILSVRC2012_val_{len(truth):08d}.JPEG"] = data
    imagenet_archives.write_nested(folder / "ILSVRC2012_img_train.tar", train)
    imagenet_archives.write_flat(folder / "ILSVRC2012_img_val.tar", val)
    (folder / manual_files.TRUTH).write_text("\n".join(truth) + "\n")


def build(folder: Path, stamps: Path | None) -> Path:
    """The built set of such archives: 45 + 20 images of 5 classes."""
    manual = folder / "manual"
    manual.mkdir()
    write_archives(manual, stamps)
    return imagenet.build(manual, folder / "data", subset=True)


def _stamps(folder: Path) -> list[list[bytes]]:
    """Images of the classes with most of them; a class is what a name begins with."""
    by_class = collections.defaultdict(list)
    for path in sorted((folder / "images").iterdir()):
        by_class["_".join(path.name.split("_")[:2])].append(path)
    largest = sorted(by_class.values(), key=len, reverse=True)[:CLASSES]
    return [[path.read_bytes() for path in paths[: TRAIN + VAL]] for paths in largest]


def _drawn() -> list[list[bytes]]:
    rng = np.random.default_rng(0)
    return [
        [
            image_files.jpeg(
                np.clip(rng.normal(50 * number, 25, (48, 60, 3)), 0, 255).astype(np.uint8)
            )
            for _ in range(TRAIN + VAL)
        ]
        for number in range(CLASSES)
    ]
