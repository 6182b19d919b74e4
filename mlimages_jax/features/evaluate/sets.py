# SPDX-License-Identifier: BSD-3-Clause
"""The two sets of labelled images that an evaluation of features needs."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from tyro.conf import arg

from mlimages_jax.command_line import optional
from mlimages_jax.features import FeaturesError, results
from mlimages_jax.features.evaluate.labelled import SparseLabels, read_labels, with_labels
from mlimages_jax.features.evaluate.scorecard import LabelRules, Scorecard
from mlimages_jax.features.export.exported import Exported, name_fractions, open_exported
from mlimages_jax.features.export.manifest import COMPONENTS


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetOptions:
    """Options about images and labels, common to the commands that evaluate features.

    Attributes:
        train: features of the training images, a folder on a disk or in a bucket.
        test: features of the test images; default: hold out a part of the training images, by a
            hash of the name.
        held_out: fraction of the images to hold out if there is no --test.
        labels: file with a name, a tab and a class, or labels as in a label list, on every line;
            default: the labels of the export.
        test_labels: the same for --test, if that is another file.
        features: name of the export's output to use.
        task: single (one class per image) or multi; auto decides by the labels.
        threshold: minimum confidence of a positive class, for several classes per image.
        missing_labels: meaning of classes that an image does not list.
    """

    # Not Path, which makes one slash of the two in a URL.
    train: Annotated[str, arg(metavar="PATH")]
    test: Annotated[str | None, optional("PATH")] = None
    held_out: float = 0.2
    labels: Annotated[Path | None, optional("PATH")] = None
    test_labels: Annotated[Path | None, optional("PATH")] = None
    features: str = "features"
    task: Literal["auto", "single", "multi"] = "auto"
    threshold: float = 0.7
    missing_labels: Literal["absent", "unknown"] = "absent"

    def about(self) -> dict[str, Any]:
        """Returns the options that affect metrics and are reported nowhere else, as JSON values."""
        return {name: getattr(self, name) for name in ("features", "threshold", "missing_labels")}


@dataclasses.dataclass(frozen=True, eq=False)
class Sets:
    """Training and test images, with the same classes.

    Attributes:
        train: Training images.
        test: Test images.
        train_labels: Labels of the training images.
        test_labels: Labels of the test images.
        rules: How labels count.
        unlabelled: Number of images skipped because they have no labels.
    """

    train: Exported
    test: Exported
    train_labels: SparseLabels
    test_labels: SparseLabels
    rules: LabelRules
    unlabelled: int

    def scorecard(self) -> Scorecard:
        """Returns an empty scorecard for the test images."""
        return Scorecard(self.test_labels, self.rules)

    def shared_names(self) -> int:
        """Counts test images whose name is also the name of a training image."""
        names = set(self.train.names)
        return sum(name in names for name in self.test.names)

    def about(self) -> dict[str, Any]:
        """Describes the sets as JSON values."""
        return {
            "task": "single" if self.rules.single else "multi",
            "classes": self.train_labels.num_classes,
            "unlabelled": self.unlabelled,
            "train": results.about(self.train),
            "test": results.about(self.test) | {"names_in_train_too": self.shared_names()},
        }

    def summary(self) -> str:
        """Describes the sets as text."""
        kind = "one per image" if self.rules.single else "several per image"
        apart = self.train.folder != self.test.folder
        lines = [
            (len(self.train), "training images"),
            (len(self.test), "test images"),
            (self.shared_names(), "  of these with the name of a training image"),
            (self.train_labels.num_classes, f"classes, {kind}"),
            (self.unlabelled, "images skipped: without labels"),
            # Two parts of one export both know its number of unreadable images.
            (self.train.without + apart * self.test.without, "images skipped: unreadable"),
        ]
        return "\n".join(f"{count:>14,} {text}" for count, text in lines)


def open_sets(options: SetOptions) -> Sets:
    """Opens two sets, or splits one into training and test images.

    Raises:
        FeaturesError: If the sets do not match, or have no labels.
        FileNotFoundError: If there is no export.
        FeatureFilesError: If an export is incomplete, or does not have the output.
    """
    if not 0 < options.threshold <= 1:
        raise FeaturesError(f"--threshold {options.threshold}: give a number above 0, up to 1")
    images = open_exported(options.train, output=options.features)
    train = with_labels(images, options.labels)
    unlabelled = len(images) - len(train)
    if options.test is None:
        train, test = _split(train, options.held_out)
    else:
        images = open_exported(options.test, output=options.features)
        test = with_labels(images, options.test_labels or options.labels)
        unlabelled += len(images) - len(test)
    if train.width != test.width:
        raise FeaturesError(
            f"{train.folder} has {train.width} numbers per image but {test.folder} {test.width}: "
            "export both with the same network"
        )
    _check_same_network(train, test)
    train_labels, test_labels = read_labels([train, test])
    rules = LabelRules(
        single=_is_single([train_labels, test_labels], options.task),
        threshold=options.threshold,
        missing_labels={"absent": 0.0, "unknown": -1.0}[options.missing_labels],
    )
    return Sets(train, test, train_labels, test_labels, rules, unlabelled)


def _check_same_network(train: Exported, test: Exported) -> None:
    """Compares the digests of the weights: equal widths do not imply the same network.

    Raises:
        FeaturesError: If they differ; exports of earlier versions have no digest.
    """
    ours, theirs = (one.metadata.get("checkpoint", {}) for one in (train, test))
    weights = [one.get("weights") for one in (ours, theirs)]
    if all(weights) and weights[0] != weights[1]:
        raise FeaturesError(
            f"{train.folder} and {test.folder} are features of different networks "
            f"({ours['folder']} and {theirs['folder']}): export both with the same one"
        )
    if train.metadata.get(COMPONENTS) != test.metadata.get(COMPONENTS):
        raise FeaturesError(
            f"{train.folder} and {test.folder} were not stored along the same principal "
            "components: export one with --config.components=K, the other with the same and "
            "--config.components_of=FIRST"
        )


def _split(images: Exported, held_out: float) -> tuple[Exported, Exported]:
    """Splits images into a training and a test part."""
    if not 0 < held_out < 1:
        raise FeaturesError(f"--held-out {held_out}: give a fraction between 0 and 1, or --test")
    # By name and not by position: features of another network are split in the same way, and an
    # image keeps its side when others are added.
    outside = name_fractions(images.names, purpose="test") < held_out
    if outside.all() or not outside.any():
        raise FeaturesError(
            f"--held-out {held_out} of {len(images)} images leaves none on one side: give "
            "another fraction, more images, or --test"
        )
    return images.select(np.flatnonzero(~outside)), images.select(np.flatnonzero(outside))


def _is_single(tables: list[SparseLabels], task: str) -> bool:
    one_each = all(table.one_each() for table in tables)
    if task == "single" and not one_each:
        raise FeaturesError(
            "--task single: some images have several labels, or one with a confidence below 1"
        )
    return one_each and task != "multi"
