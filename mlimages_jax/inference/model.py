# SPDX-License-Identifier: BSD-3-Clause
"""A trained network with everything needed to use it: logits, features and tags of images."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax import Array

from mlimages_jax import moved
from mlimages_jax.checkpoints.weights_digest import weights_digest
from mlimages_jax.data.images.views import EvaluationView
from mlimages_jax.inference import chosen_thresholds, tagging, user_images
from mlimages_jax.inference.image_batches import CroppedImages, OnError, crop_images
from mlimages_jax.inference.image_rows import OutputRows, Tags
from mlimages_jax.inference.network_outputs import network_outputs, output_widths
from mlimages_jax.inference.tagging import Tag, Thresholds
from mlimages_jax.inference.user_images import UserImage, UserImages
from mlimages_jax.labels.class_thresholds import ClassThresholds
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.metrics.calibration import calibrated_probability
from mlimages_jax.models import architecture
from mlimages_jax.models.resnet import ResNet


class ModelError(ValueError):
    """Raised when a checkpoint lacks something or does not match the given arguments."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A trained network with everything needed to use it; see `pretrained.load`.

    An image may be a path, the bytes of a file, an open file, a PIL image of any mode, or an array
    (NumPy, JAX or others): [H, W, 3] RGB or [H, W] grey, uint8 or floats in [-1, 1]. Methods take
    one image, or several in a list, a tuple or an iterator, and return one entry per image in
    input order, even for a single image. URLs are refused: download the file first.

    `on_error` decides about images that cannot be read: "raise" raises the error; "row" gives a
    row of nan, with the reason in the `errors` of the array, or no tags and an `error`. None means
    "raise" for a single image and "row" for several.

    Images run in batches padded to 1, 2, 4, ... `max_batch`, so that few programs are compiled;
    the other images of a batch change a result by rounding at most.

    Attributes:
        params: Nested dict of float32 arrays.
        batch_stats: Nested dict of float32 arrays, the running statistics of BatchNorm.
        network: The Flax module; `network.apply` computes logits and features.
        hierarchy: Names, WordNet ids and parents of the classes; None if unknown.
        loss: "softmax" (one class per image), or "weighted", "sigmoid", "asymmetric", "focal" or
            "two_way" (several classes per image); "" if the checkpoint does not say.
        positive_weight: Weight of positives in the weighted loss, used to calibrate
            probabilities; 1 for other losses.
        view: How images are resized and cropped.
        max_batch: Largest number of images that run at once.
        thresholds: Minimum probability of a tag by class, as `mlimages thresholds` found them for
            these weights; None if there are none.
        source: Where the model was loaded from, for display.
    """

    params: dict[str, Any]
    batch_stats: dict[str, Any]
    network: ResNet
    hierarchy: Hierarchy | None
    loss: str
    positive_weight: float
    view: EvaluationView
    max_batch: int = 64
    thresholds: ClassThresholds | None = None
    source: str = "created in code"

    def __repr__(self) -> str:
        """Returns a summary in some lines; the default would print every weight."""
        network, view = self.network, self.view
        count = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        names = [] if self.hierarchy is None else list(self.hierarchy.names[:3])
        loss = self.loss or "unknown"
        if self.loss == "weighted":
            loss += f", positives weighted by {self.positive_weight:g}"
        tags = [f"  tags     reach the thresholds of {self.thresholds}"] if self.thresholds else []
        upright = f"EXIF orientation {'applied' if view.exif_orientation else 'ignored'}"
        return "\n".join([
            f"Model with {network.num_classes:,} classes, {count:,} parameters, {self.source}",
            f"  network  {architecture.described(network)}, {network.dtype.name}",
            f"  images   {view.size} x {view.size} pixels, {view.name}, {upright}",
            f"  loss     {loss}",
            f"  classes  {'; '.join([*names, '...']) if names else 'without names'}",
            *tags,
        ])  # fmt: skip

    @property
    def image_size(self) -> int:
        """Side of the cropped images in pixels."""
        return self.view.size

    def logits(self, images: UserImages, *, on_error: OnError | None = None) -> np.ndarray:
        """Computes logits, float32 [n, C].

        Args:
            images: One image or several, cropped according to `view`; or an array [B, S, S, 3],
                float in [-1, 1] or uint8, which is passed to the network unchanged. S may differ
                from `image_size`.
            on_error: "raise" or "row"; see the class.

        Raises:
            ValueError: If an array with four dimensions has another shape or dtype, or numbers
                outside [-1, 1].
            BadImage: If an image cannot be decoded; the message names it.
            OSError: If a file cannot be read.
        """
        return self._rows("logits", images, on_error)

    def features(self, images: UserImages, *, on_error: OnError | None = None) -> np.ndarray:
        """Computes pooled features, the classifier's input, float32 [n, F]; see `logits`."""
        return self._rows("features", images, on_error)

    def probabilities(self, images: UserImages, *, on_error: OnError | None = None) -> np.ndarray:
        """Computes the probabilities of all classes, float32 [n, C]; see `probabilities_of`.

        Args:
            images: One image or several; each is cropped, including those of a 4-D array.
            on_error: "raise" or "row"; see the class.

        Raises:
            BadImage: If an image cannot be decoded; the message names it.
            OSError: If a file cannot be read.
            ModelError: See `probabilities_of`.
        """
        self._check_loss()
        parts = [np.zeros((0, self.network.num_classes), np.float32)]
        errors: dict[int, str] = {}
        for batch in self._cropped(images, on_error):
            good = self.probabilities_of(self.outputs_of(batch.images)["logits"][batch.good])
            parts.append(batch.with_bad(good))
            errors |= batch.errors
        return OutputRows.of(np.concatenate(parts), errors)

    def probabilities_of(self, logits: np.ndarray) -> np.ndarray:
        """Converts logits to probabilities of all classes, float32 [n, C].

        With a softmax loss they sum to 1. With the other losses every class has its own: the
        sigmoid s of its logit, or s / (s + w (1 - s)) to undo the weight w = 12 that the weighted
        loss gives to positives.

        Raises:
            ModelError: If the checkpoint does not say with which loss it was trained, or if the
                logits are not finite.
        """
        self._check_loss()
        if not np.isfinite(logits).all():
            raise ModelError("logits are infinite or nan: the checkpoint is damaged, use another")
        if self.loss == "softmax":
            import scipy.special  # imported here because the other losses do not need SciPy

            return scipy.special.softmax(logits, axis=-1)
        return calibrated_probability(logits, positive_weight=self.positive_weight)

    def tag(
        self,
        images: UserImages,
        top_k: int | None = 5,
        *,
        threshold: float | None = None,
        thresholds: Thresholds | None = None,
        consistent: bool = False,
        on_error: OnError | None = None,
    ) -> list[Tags]:
        """Returns the most probable classes of every image, best first.

        Args:
            images: One image or several.
            top_k: Maximum number of tags per image. None sets no limit, which suits thresholds: a
                number leaves out the less probable of the classes that reach theirs.
            threshold: Minimum probability of a tag.
            thresholds: Minimum probabilities of single classes, by WordNet id or index, or a file
                of these; see `tagging.class_limits`. `threshold` applies to all other classes.
                None uses `Model.thresholds` unless `threshold` is given; "none" uses none.
            consistent: First lower the score of every class to that of its least probable
                ancestor, see `tagging.consistent_scores`; for models with several labels per
                image.
            on_error: "raise" or "row"; see the class.

        Raises:
            BadImage: If an image cannot be decoded; the message names it.
            OSError: If a file cannot be read.
            ThresholdError: If a class is unknown, a threshold is outside [0, 1], or a file is of
                another model.
            ModelError: If the classes have no names, the loss is unknown, or `consistent` is set
                for a softmax model.
        """
        tags_of = self.tagger(
            top_k=top_k, threshold=threshold, thresholds=thresholds, consistent=consistent
        )
        found: list[Tags] = []
        for batch in self._cropped(images, on_error):
            good = iter(tags_of(self.outputs_of(batch.images)["logits"][batch.good]))
            for position, is_good in enumerate(batch.good, batch.start):
                found.append(Tags(next(good)) if is_good else Tags(error=batch.errors[position]))
        return found

    def tagger(
        self,
        *,
        top_k: int | None = 5,
        threshold: float | None = None,
        thresholds: Thresholds | None = None,
        consistent: bool = False,
    ) -> Callable[[np.ndarray], list[list[Tag]]]:
        """Returns a function from logits [n, C] to the tags of n images; arguments as for `tag`.

        Raises:
            ThresholdError: If a class is unknown or a threshold is outside [0, 1].
            ModelError: See `tag`.
        """
        hierarchy = self._named_classes()
        self._check_loss()
        if consistent and self.loss == "softmax":
            raise ModelError(
                "consistent=True is for models with several labels per image: this model predicts "
                "one class per image, and its ancestors are separate classes"
            )
        tags_of = tagging.tagger(
            hierarchy,
            top_k=top_k,
            threshold=threshold,
            thresholds=self._chosen(threshold, thresholds),
            consistent=consistent,
        )
        return lambda logits: tags_of(self.probabilities_of(logits))

    def class_limits(
        self, *, threshold: float | None = None, thresholds: Thresholds | None = None
    ) -> np.ndarray | None:
        """Returns the score that a tag of each class must reach; arguments as for `tag`.

        Returns:
            float64 [C], -inf for classes without a limit; None if no class has one.

        Raises:
            ThresholdError: See `tag`.
            ModelError: If the classes have no names.
        """
        hierarchy = self._named_classes()
        chosen = self._chosen(threshold, thresholds)
        return tagging.class_limits(hierarchy, threshold=threshold, thresholds=chosen)

    def _named_classes(self) -> Hierarchy:
        if self.hierarchy is None:
            raise ModelError(
                f"the {self.network.num_classes} classes of this checkpoint have no names: its "
                "workdir has no dictionary.txt; give load(..., classes=FILE)"
            )
        return self.hierarchy

    def _chosen(self, threshold: float | None, thresholds: Thresholds | None) -> Thresholds | None:
        return chosen_thresholds.for_tags(
            self.thresholds,
            self._named_classes(),
            threshold=threshold,
            thresholds=thresholds,
            weights=lambda: weights_digest(
                {"params": self.params, "batch_stats": self.batch_stats}
            ),
            positive_weight=self.positive_weight,
        )

    def classify(
        self, images: UserImages, top_k: int = 5, *, on_error: OnError | None = None
    ) -> list[Tags]:
        """Returns the most probable classes of images with one class each, with probabilities.

        Args:
            images: One image or several.
            top_k: Maximum number of classes per image, which has one: 1 for that alone.
            on_error: "raise" or "row"; see the class.

        Raises:
            BadImage: If an image cannot be decoded; the message names it.
            OSError: If a file cannot be read.
            ModelError: If the model was trained for several labels per image, or has no names.
        """
        if self.loss not in ("softmax", ""):
            raise ModelError(
                f"this model was trained for several labels per image (loss {self.loss!r}): use tag"
            )
        return self.tag(images, top_k, on_error=on_error)

    def crop(self, image: UserImage) -> np.ndarray:
        """Returns the network's input for one image: [S, S, 3], or [10, S, S, 3] for ten crops.

        Raises:
            BadImage: If the image cannot be decoded.
            OSError: If the file cannot be read.
        """
        upright = self.view.exif_orientation
        return self.view.crop(user_images.pixels(image, exif_orientation=upright))

    @moved.renamed_method("crop")
    def cut(self, image: UserImage) -> np.ndarray:
        """`crop`, by its name of version 0.1."""
        return self.crop(image)

    def _check_loss(self) -> None:
        if not self.loss:
            raise ModelError(
                "this checkpoint does not say with which loss it was trained: give load(..., "
                "loss='softmax') for one class per image, else that of the training, such as "
                "weighted, sigmoid or asymmetric"
            )

    def _cropped(self, images: UserImages, on_error: OnError | None) -> Iterator[CroppedImages]:
        """Yields cropped images in groups that fit into `max_batch` views."""
        views = 10 if self.view.name == "ten_crop" else 1
        at_once = max(1, self.max_batch // views)
        empty = self.view.empty
        return crop_images(images, self.crop, empty=empty, at_once=at_once, on_error=on_error)

    def _rows(self, name: str, images: UserImages, on_error: OnError | None) -> np.ndarray:
        """Computes one output, [n, ...], for images or for a ready batch."""
        if user_images.is_batch(images):
            return self.outputs_of(user_images.checked_images(images))[name]
        width = output_widths(self.network)[name]
        parts = [np.zeros((0, width), np.float32)]
        errors: dict[int, str] = {}
        for batch in self._cropped(images, on_error):
            parts.append(batch.with_bad(self.outputs_of(batch.images)[name][batch.good]))
            errors |= batch.errors
        return OutputRows.of(np.concatenate(parts), errors)

    def outputs_of(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Computes logits [B, C] and features [B, F] of any number of cropped images.

        Args:
            images: [B, S, S, 3], uint8 or float32 in [-1, 1], or [B, V, S, S, 3] with V views per
                image; from `crop`, for example.
        """
        weights = {"params": self.params, "batch_stats": self.batch_stats}
        parts = []
        # At least once: without images, the outputs still need their names and widths.
        for start in range(0, max(1, len(images)), self.max_batch):
            part = images[start : start + self.max_batch]
            # Padded to a power of two: a program is compiled for every new size of a batch.
            size = min(1 << max(0, len(part) - 1).bit_length(), self.max_batch)
            filled = np.zeros((size, *part.shape[1:]), part.dtype)
            filled[: len(part)] = part
            outputs = jax.device_get(_predict(weights, filled, network=self.network))
            parts.append({name: rows[: len(part)] for name, rows in outputs.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@functools.partial(jax.jit, static_argnames="network")
def _predict(weights: dict[str, Any], images: Array, *, network: ResNet) -> dict[str, Array]:
    """Computes logits and features; compiled once for all models of one architecture."""
    return network_outputs(weights, images, model=network, names=("logits", "features"))
