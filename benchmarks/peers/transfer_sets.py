# SPDX-License-Identifier: BSD-3-Clause
"""The sets of transfer.py: stamps without the new kinds to pretrain on, and the kinds alone."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelList, read_label_list, write_label_list
from tfds_builders import imagenet, ml_images, shapes

STYLE = "drawing style"  # the tree that says how an image is drawn, not what it shows
FEWEST = 10  # images that a kind needs to be used for finetuning


class Stamps(NamedTuple):
    """The stamps.

    Attributes:
        folder: Folder with the images.
        hierarchy: All classes.
        labels: Labels of each image, by name.
        held_out: Names in the published validation list that are not in the training list.
        new: Classes of the kinds that pretraining must not see, with their descendants.
    """

    folder: Path
    hierarchy: Hierarchy
    labels: dict[str, set[int]]
    held_out: set[str]
    new: set[int]


def read_stamps(folder: Path) -> Stamps:
    """Merges the repeated rows of each image, and selects the new kinds."""
    hierarchy = Hierarchy.from_file(folder / "dictionary.txt")
    labels: dict[str, set[int]] = defaultdict(set)
    names: dict[str, set[str]] = {"train": set(), "val": set()}
    for split, seen in names.items():
        path = folder / f"{split}_image_list.txt"
        for row in read_label_list(path, num_classes=len(hierarchy)):
            labels[row.name] |= set(row.classes.tolist())
            seen.add(row.name)
    counts = Counter(label for mine in labels.values() for label in mine)
    new: set[int] = set()
    for root in hierarchy.roots.tolist():
        kinds = [kind for kind in hierarchy.children(root).tolist() if counts[kind] >= FEWEST]
        if hierarchy.names[root] != STYLE and kinds:
            # The largest kind of a tree stays, so that pretraining sees the tree at all.
            new |= set(kinds) - {max(kinds, key=lambda kind: counts[kind])}
    paths = hierarchy.paths()
    below = {i for i in range(len(hierarchy)) if new.intersection(paths[i].tolist())}
    return Stamps(folder / "images", hierarchy, dict(labels), names["val"] - names["train"], below)


def pretraining_set(stamps: Stamps, work: Path, count: int) -> Path:
    """Builds the set of stamps without the new kinds and of drawn shapes, with the classes of both.

    Args:
        stamps: All stamps.
        work: Folder for lists and records.
        count: Number of drawn training images; a tenth as many are drawn for validation.
    """
    manual, old = work / "manual", stamps.hierarchy
    drawn = shapes.draw(work / "drawn", num_train=count, num_val=count // 10)
    (manual / "images").mkdir(parents=True)
    (manual / "images" / "stamps").symlink_to(stamps.folder.resolve())
    (manual / "images" / "shapes").symlink_to((drawn / "images").resolve())
    kept = [i for i in range(len(old)) if i not in stamps.new]
    place = {-1: -1} | {i: number for number, i in enumerate(kept)}
    # The classes of the shapes follow those of the stamps; roots have no parent (-1) in both.
    others = Hierarchy.from_file(drawn / "dictionary.txt")
    hierarchy = Hierarchy(
        (*(old.ids[i] for i in kept), *others.ids),
        (*(old.names[i] for i in kept), *others.names),
        np.concatenate(
            [
                [place[i] for i in old.parents[kept].tolist()],
                np.where(others.parents < 0, -1, others.parents + len(kept)),
            ]
        ),
    )
    hierarchy.to_file(manual / "dictionary.txt")
    for split in ("train", "val"):
        rows = [
            (f"stamps/{name}", sorted(place[i] for i in stamps.labels[name]))
            for name in old_images(stamps)
            if (name in stamps.held_out) == (split == "val")
        ]
        for row in read_label_list(drawn / f"{split}_image_list.txt", num_classes=len(others)):
            rows.append((f"shapes/{row.name}", (row.classes + len(kept)).tolist()))
        listed = ((name, labels, [1.0] * len(labels)) for name, labels in rows)
        label_list = LabelList.from_rows(listed, num_classes=len(hierarchy))
        write_label_list(manual / f"{split}_image_list.txt", label_list)
    return ml_images.build(manual, work / "data", name="pretraining", short_side=None)


def old_images(stamps: Stamps) -> list[str]:
    """Returns the names of the stamps that show no new kind."""
    return sorted(name for name, labels in stamps.labels.items() if not labels & stamps.new)


def new_images(stamps: Stamps) -> dict[str, list[str]]:
    """Returns the names of the stamps with exactly one new kind, by kind."""
    # Kinds are the topmost new classes; `new` has their descendants too.
    kinds = {i for i in stamps.new if stamps.hierarchy.parents[i] not in stamps.new}
    images = defaultdict(list)
    for name, labels in sorted(stamps.labels.items()):
        if len(shown := labels & kinds) == 1:
            images[stamps.hierarchy.names[min(shown)]].append(name)
    return dict(sorted(images.items()))


def finetuning_set(images: dict[str, list[str]], arrays: Path, work: Path, seed: int) -> Path:
    """Builds a set with one folder per class; the seed picks half of it for validation."""
    rng = np.random.default_rng(seed)
    manual = work / f"manual_{seed}"
    for kind, names in images.items():
        for number, name in enumerate(rng.permutation(names).tolist()):
            folder = manual / ("train" if 2 * number < len(names) else "val") / kind
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to((arrays / name).resolve())
    return imagenet.build(manual, work / "data", name=f"finetuning_{seed}")


def common_images(images: Path, first: Iterable[str], second: Iterable[str]) -> int:
    """Counts the file contents that occur in both."""
    digests = [
        {hashlib.sha256((images / name).read_bytes()).hexdigest() for name in names}
        for names in (first, second)
    ]
    return len(digests[0] & digests[1])
