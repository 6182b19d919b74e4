# SPDX-License-Identifier: BSD-3-Clause
"""The two sets of labelled images that an evaluation of features needs."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mlimages_jax.features import FeaturesError, results
from mlimages_jax.features.evaluate.labelled import Labels, read_labels, with_labels
from mlimages_jax.features.evaluate.scorecard import Judging, Scorecard
from mlimages_jax.features.export.exported import Exported, name_shares, open_exported


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetOptions:
    """What a command that evaluates features is told about its images.

    Attributes:
        train: features of the images to learn from.
        test: features of those that are judged; left out, a part of the training images is held
            out by a hash of the name.
        held_out: share of the images held out where there is no --test.
        labels: a file with a name, a tab and a class, or labels as in a label list, in every line;
            left out, the labels of the export are used.
        test_labels: the same for --test, if that is another file.
        features: which output of the export.
        task: single (one class an image) or multi; auto looks at the labels.
        threshold: the confidence from which one of many classes is positive.
        unlisted: what classes are that an image does not list.
    """

    train: Path
    test: Path | None = None
    held_out: float = 0.2
    labels: Path | None = None
    test_labels: Path | None = None
    features: str = "features"
    task: Literal["auto", "single", "multi"] = "auto"
    threshold: float = 0.7
    unlisted: Literal["absent", "unknown"] = "absent"

    def about(self) -> dict[str, Any]:
        """Those that decide numbers and are told nowhere else, as JSON values."""
        return {name: getattr(self, name) for name in ("features", "threshold", "unlisted")}


@dataclasses.dataclass(frozen=True, eq=False)
class Sets:
    """Images to learn from and images to be judged by, with the same classes.

    Attributes:
        train: images.
        test: images.
        train_labels: theirs.
        test_labels: theirs.
        judging: how labels count.
        unlabelled: images that were left out.
    """

    train: Exported
    test: Exported
    train_labels: Labels
    test_labels: Labels
    judging: Judging
    unlabelled: int

    def scorecard(self) -> Scorecard:
        """An empty one of the test images."""
        return Scorecard(self.test_labels, self.judging)

    def shared_names(self) -> int:
        """Test images whose name a training image has too."""
        names = set(self.train.names)
        return sum(name in names for name in self.test.names)

    def about(self) -> dict[str, Any]:
        """What is compared, as JSON values."""
        return {
            "task": "single" if self.judging.single else "multi",
            "classes": self.train_labels.num_classes,
            "unlabelled": self.unlabelled,
            "train": results.about(self.train),
            "test": results.about(self.test) | {"names_in_train_too": self.shared_names()},
        }

    def summary(self) -> str:
        """The same for people."""
        kind = "one an image" if self.judging.single else "several an image"
        apart = self.train.folder != self.test.folder
        lines = [
            (len(self.train), "training images"),
            (len(self.test), "test images"),
            (self.shared_names(), "  of these have the name of a training image"),
            (self.train_labels.num_classes, f"classes, {kind}"),
            (self.unlabelled, "images left out: without labels"),
            (self.train.without + apart * self.test.without, "images left out: unreadable"),
        ]
        return "\n".join(f"{count:>14,} {text}" for count, text in lines)


def open_sets(options: SetOptions) -> Sets:
    """Opens two sets, or one and holds a part of it out.

    Raises:
        FeaturesError: the sets do not fit together, or have no labels.
        FileNotFoundError: there is no export.
        FeatureFilesError: it is not complete, or lacks the output.
    """
    if not 0 < options.threshold <= 1:
        raise FeaturesError(f"--threshold {options.threshold}: give a number above 0, up to 1")
    images = open_exported(options.train, output=options.features)
    train = with_labels(images, options.labels)
    unlabelled = len(images) - len(train)
    if options.test is None:
        train, test = _cut(train, options.held_out)
    else:
        images = open_exported(options.test, output=options.features)
        test = with_labels(images, options.test_labels or options.labels)
        unlabelled += len(images) - len(test)
    if train.width != test.width:
        raise FeaturesError(
            f"{train.folder} has {train.width} numbers an image and {test.folder} {test.width}: "
            "export both with the same network"
        )
    _check_same_network(train, test)
    train_labels, test_labels = read_labels([train, test])
    judging = Judging(
        single=_is_single([train_labels, test_labels], options.task),
        threshold=options.threshold,
        unlisted={"absent": 0.0, "unknown": -1.0}[options.unlisted],
    )
    return Sets(train, test, train_labels, test_labels, judging, unlabelled)


def _check_same_network(train: Exported, test: Exported) -> None:
    """Compares the weights, which two networks of one architecture do not share.

    Raises:
        FeaturesError: they differ; exports of earlier versions do not say.
    """
    ours, theirs = (one.metadata.get("checkpoint", {}) for one in (train, test))
    weights = [one.get("weights") for one in (ours, theirs)]
    if all(weights) and weights[0] != weights[1]:
        raise FeaturesError(
            f"{train.folder} and {test.folder} are features of different networks "
            f"({ours['folder']} and {theirs['folder']}): export both with the same one"
        )


def _cut(images: Exported, held_out: float) -> tuple[Exported, Exported]:
    """A training and a test part."""
    if not 0 < held_out < 1:
        raise FeaturesError(f"--held-out {held_out}: give a share between 0 and 1, or --test")
    outside = name_shares(images.names, purpose="test") < held_out
    if outside.all() or not outside.any():
        raise FeaturesError(
            f"--held-out {held_out} of {len(images)} images leaves none on one side: give "
            "another share, more images, or --test"
        )
    return images.select(np.flatnonzero(~outside)), images.select(np.flatnonzero(outside))


def _is_single(tables: list[Labels], task: str) -> bool:
    one_each = all(table.one_each() for table in tables)
    if task == "single" and not one_each:
        raise FeaturesError(
            "--task single: some images have several labels, or one of a confidence below 1"
        )
    return one_each and task != "multi"
