# SPDX-License-Identifier: BSD-3-Clause
"""A trained model for notebooks: parameters, logits, features and tags of images.

    import mlimages_jax as mli

    model = mli.load("workdirs/finetune")
    for tag in model.tag("shark.jpg", top_k=3)[0]:
        print(f"{tag.score:.2f}  {tag.name}")

Needs no data set: a checkpoint and, for names, the category file that lies in its workdir.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from etils import epath
from jax import Array

from mlimages_jax.checkpoints import saved_model
from mlimages_jax.data.images.views import PROTOCOLS, EvaluationView, Protocol
from mlimages_jax.inference import tagging, user_images
from mlimages_jax.inference.image_batches import Cut, OnError, cut_images
from mlimages_jax.inference.image_rows import OutputRows, Tags
from mlimages_jax.inference.network_outputs import network_outputs, output_widths
from mlimages_jax.inference.tagging import Tag, Thresholds
from mlimages_jax.inference.user_images import UserImage, UserImages
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.metrics.calibration import calibrated_probability
from mlimages_jax.models import architecture
from mlimages_jax.models.resnet import ResNet
from mlimages_jax.settings import build

LOSSES = ("softmax", "weighted", "sigmoid", "asymmetric")


class ModelError(ValueError):
    """A checkpoint that lacks what is asked of it, or does not fit what is given with it."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A trained network and what it takes to use it; see `load`.

    Images are a path, the bytes of a file, an opened file, a PIL image of any mode, or an array of
    numpy, jax or others: [H, W, 3] RGB or [H, W] grey, uint8 or floats in [-1, 1]. One of them or
    several, in a list, a tuple or an iterator. What comes back has an entry an image in input
    order, also where it is only one. An address is refused: download it first.

    `on_error` says what an image does that cannot be read: "raise", or "row", a row of nan whose
    reason `errors` of the array has, or no tags and an `error`. None: an image that was given alone
    raises, one of several is a row.

    They run in batches that are filled up to 1, 2, 4, ... `max_batch`, so that few programs are
    compiled; what else is in its batch changes an image's result by rounding at most.

    Attributes:
        params: nested dict of float32 arrays.
        batch_stats: the running statistics of BatchNorm, the same.
        network: that the parameters belong to; `network.apply` computes logits and features.
        hierarchy: names, WordNet ids and parents of the classes; None where nobody gave them.
        loss: "softmax" (one class an image), "weighted", "sigmoid" or "asymmetric" (several);
            "" where the checkpoint does not say.
        positive_weight: of the weighted loss, by which probabilities are calibrated; else 1.
        view: how an image is cut.
        max_batch: images that run at once.
        source: where it was loaded from, for people.
    """

    params: dict[str, Any]
    batch_stats: dict[str, Any]
    network: ResNet
    hierarchy: Hierarchy | None
    loss: str
    positive_weight: float
    view: EvaluationView
    max_batch: int = 64
    source: str = "made by hand"

    def __repr__(self) -> str:
        """Five lines: print(model) would show every weight otherwise."""
        network, view = self.network, self.view
        count = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        names = [] if self.hierarchy is None else list(self.hierarchy.names[:3])
        loss = self.loss or "not known"
        if self.loss == "weighted":
            loss += f", a positive counts {self.positive_weight:g} times"
        upright = "turned upright by EXIF" if view.exif_orientation else "as they are stored"
        return "\n".join([
            f"Model of {network.num_classes:,} classes, {count:,} parameters, {self.source}",
            f"  network  {architecture.described(network)}, {network.dtype.name}",
            f"  images   {view.size} x {view.size} pixels, {view.protocol}, {upright}",
            f"  loss     {loss}",
            f"  classes  {'; '.join([*names, '...']) if names else 'without names'}",
        ])  # fmt: skip

    @property
    def image_size(self) -> int:
        """The side of the cut images in pixels."""
        return self.view.size

    def logits(self, images: UserImages, *, on_error: OnError | None = None) -> np.ndarray:
        """Logits float32 [n, C].

        Args:
            images: one or several, cut as `view` says; or an array [B, S, S, 3], float in [-1, 1]
                or uint8, which goes into the network as it is. S need not be `image_size`.
            on_error: "raise" or "row", see the class.

        Raises:
            ValueError: four dimensions of another shape or dtype, or numbers outside [-1, 1].
            BadImage: names the image that cannot be decoded.
            OSError: a file that cannot be read.
        """
        return self._rows("logits", images, on_error)

    def features(self, images: UserImages, *, on_error: OnError | None = None) -> np.ndarray:
        """Pooled features float32 [n, F], which the classifier sees; arguments as for `logits`."""
        return self._rows("features", images, on_error)

    def probabilities(self, images: UserImages, *, on_error: OnError | None = None) -> np.ndarray:
        """Probabilities of all classes, float32 [n, C]; see `probabilities_of`.

        Args:
            images: one or several; each is cut, those in an array of four dimensions too.
            on_error: "raise" or "row", see the class.

        Raises:
            BadImage: names the image that cannot be decoded.
            OSError: a file that cannot be read.
            ModelError: as `probabilities_of`.
        """
        self._check_loss()
        parts = [np.zeros((0, self.network.num_classes), np.float32)]
        errors: dict[int, str] = {}
        for cut in self._cuts(images, on_error):
            good = self.probabilities_of(self._outputs(cut.images)["logits"][cut.good])
            parts.append(_filled(good, cut.good))
            errors |= cut.errors
        return OutputRows.of(np.concatenate(parts), errors)

    def probabilities_of(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities of all classes from logits, float32 [n, C].

        Of a softmax loss they sum to 1. Of the others each class has its own: the sigmoid s of its
        logit, or, as the weighted loss counts positives w = 12 times, s / (s + w (1 - s)).

        Raises:
            ModelError: the checkpoint does not say with which loss it was trained, or its logits
                are not finite.
        """
        self._check_loss()
        if not np.isfinite(logits).all():
            raise ModelError("logits are infinite or nan: the checkpoint is damaged, take another")
        if self.loss == "softmax":
            import scipy.special  # here: other losses do without

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
        """The likeliest classes of every image, best first.

        Args:
            images: one or several.
            top_k: at most so many tags; None sets no such bound.
            threshold: the probability that a tag needs.
            thresholds: of single classes, by WordNet id or index, or a file of these, see
                `tagging.class_limits`; `threshold` is for the others.
            consistent: lower a class that is above one of its ancestors to it first, see
                `tagging.consistent_scores`; for several labels an image.
            on_error: "raise" or "row", see the class.

        Raises:
            BadImage: names the image that cannot be decoded.
            OSError: a file that cannot be read.
            ThresholdError: an unknown class, or a number outside 0 to 1.
            ModelError: classes without names, or no loss; or consistency was asked of a softmax.
        """
        tags_of = self.tagger(
            top_k=top_k, threshold=threshold, thresholds=thresholds, consistent=consistent
        )
        found: list[Tags] = []
        for cut in self._cuts(images, on_error):
            good = iter(tags_of(self._outputs(cut.images)["logits"][cut.good]))
            for position, is_good in enumerate(cut.good, cut.start):
                found.append(Tags(next(good)) if is_good else Tags(error=cut.errors[position]))
        return found

    def tagger(
        self,
        *,
        top_k: int | None = 5,
        threshold: float | None = None,
        thresholds: Thresholds | None = None,
        consistent: bool = False,
    ) -> Callable[[np.ndarray], list[list[Tag]]]:
        """A function from logits [n, C] to the tags of n images; arguments as for `tag`.

        Raises:
            ThresholdError: an unknown class, or a number outside 0 to 1.
            ModelError: as for `tag`.
        """
        if self.hierarchy is None:
            raise ModelError(
                f"the {self.network.num_classes} classes of this checkpoint have no names: there "
                "is no dictionary.txt in its workdir; give load(..., dictionary=FILE)"
            )
        self._check_loss()
        if consistent and self.loss == "softmax":
            raise ModelError(
                "consistent=True is for several labels an image: this model gives one class a "
                "image, whose probability its ancestors do not share"
            )
        tags_of = tagging.tagger(
            self.hierarchy,
            top_k=top_k,
            threshold=threshold,
            thresholds=thresholds,
            consistent=consistent,
        )
        return lambda logits: tags_of(self.probabilities_of(logits))

    def classify(
        self, images: UserImages, top_k: int = 5, *, on_error: OnError | None = None
    ) -> list[Tags]:
        """The likeliest classes of images that have one class each, with softmax probabilities.

        Args:
            images: one or several.
            top_k: as for `tag`.
            on_error: "raise" or "row", see the class.

        Raises:
            BadImage: names the image that cannot be decoded.
            OSError: a file that cannot be read.
            ModelError: the model was trained for several labels an image, or has no names.
        """
        if self.loss not in ("softmax", ""):
            raise ModelError(
                f"this model was trained for several labels an image (loss {self.loss!r}): use tag"
            )
        return self.tag(images, top_k, on_error=on_error)

    def cut(self, image: UserImage) -> np.ndarray:
        """What the network sees of one image: [S, S, 3], or [10, S, S, 3] of ten crops.

        Raises:
            BadImage: it cannot be decoded.
            OSError: the file cannot be read.
        """
        upright = self.view.exif_orientation
        return self.view.cut(user_images.pixels(image, exif_orientation=upright))

    def _check_loss(self) -> None:
        if not self.loss:
            raise ModelError(
                "this checkpoint does not say with which loss it was trained: give load(..., "
                "loss='softmax') for one class an image, else weighted, sigmoid or asymmetric"
            )

    def _cuts(self, images: UserImages, on_error: OnError | None) -> Iterator[Cut]:
        """Yields images, a few at a time."""
        views = 10 if self.view.protocol == "ten_crop" else 1
        at_once = max(1, self.max_batch // views)
        empty = self.view.empty
        return cut_images(images, self.cut, empty=empty, at_once=at_once, on_error=on_error)

    def _rows(self, name: str, images: UserImages, on_error: OnError | None) -> np.ndarray:
        """One output, [n, ...], of images or of a batch."""
        if user_images.is_batch(images):
            return self._outputs(user_images.checked_images(images))[name]
        width = output_widths(self.network)[name]
        parts = [np.zeros((0, width), np.float32)]
        errors: dict[int, str] = {}
        for cut in self._cuts(images, on_error):
            parts.append(_filled(self._outputs(cut.images)[name][cut.good], cut.good))
            errors |= cut.errors
        return OutputRows.of(np.concatenate(parts), errors)

    def _outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Logits [B, C] and features [B, F] of any number of images."""
        weights = {"params": self.params, "batch_stats": self.batch_stats}
        parts = []
        for start in range(0, max(1, len(images)), self.max_batch):
            part = images[start : start + self.max_batch]
            size = min(1 << max(0, len(part) - 1).bit_length(), self.max_batch)
            filled = np.zeros((size, *part.shape[1:]), part.dtype)
            filled[: len(part)] = part
            outputs = jax.device_get(_predict(weights, filled, network=self.network))
            parts.append({name: rows[: len(part)] for name, rows in outputs.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def load(
    path: epath.PathLike,
    *,
    dictionary: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    dtype: str = "float32",
    protocol: Protocol | None = None,
    loss: str | None = None,
    exif_orientation: bool | None = None,
    place: jax.sharding.Sharding | None = None,
) -> Model:
    """Loads a model from a checkpoint or an export, with the averaged weights where it has them.

    Args:
        path: a workdir, its checkpoints folder, one step, or a file of `convert to-safetensors`.
        dictionary: the category file of the classes; None: the one in the checkpoint's workdir, or
            in the file.
        image_size: side of the cut images in pixels; None: as the checkpoint was trained.
        dtype: of activations: "float32" (in full precision on any device) or "bfloat16", which is
            faster on accelerators and a little less exact.
        protocol: how images are cut, see `EvaluationView`; None: as the training evaluated, else
            "short_side", as the original does.
        loss: with which it was trained; None: as the checkpoint says.
        exif_orientation: turn images upright as their EXIF data say; None: if the checkpoint was
            trained on such images, or does not say.
        place: where the weights go; None: to this process's first device.

    Raises:
        FileNotFoundError: there is no checkpoint, or no such dictionary.
        WeightsFileError: a damaged file.
        ModelError: the dictionary has other classes, nothing says which size it is, or an unknown
            loss or protocol.
        HierarchyError: a malformed dictionary.
        UnknownArchitectureError: parameters of another network.
        ConfigError: an unknown dtype.
    """
    compute_dtype = build.compute_dtype(dtype)
    if protocol not in (*PROTOCOLS, None):
        raise ModelError(f"protocol={protocol!r} is none of {', '.join(PROTOCOLS)}")
    alone = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    saved = saved_model.read(path, place=place or alone)
    network = architecture.network_of(saved.weights["params"], dtype=compute_dtype)
    usage = saved.usage(loss=loss)
    if usage.loss not in (*LOSSES, ""):
        raise ModelError(f"loss={usage.loss!r} is none of {', '.join(LOSSES)}")
    size = image_size or usage.image_size
    if not size:
        raise ModelError(
            f"{saved.where} does not say at which size it was trained: give image_size=224"
        )
    hierarchy = Hierarchy.from_file(dictionary) if dictionary else saved.hierarchy
    if hierarchy and len(hierarchy) != network.num_classes:
        raise ModelError(
            f"{dictionary or 'its dictionary'} names {len(hierarchy)} classes and {saved.where} "
            f"tells {network.num_classes} apart: give the dictionary that it was trained with"
        )
    return Model(
        **saved.weights,
        network=network,
        hierarchy=hierarchy,
        loss=usage.loss,
        positive_weight=usage.positive_weight,
        view=EvaluationView(
            size,
            protocol or usage.protocol,
            saved_model.turns_upright(saved.config, exif_orientation),
        ),
        source=f"{saved.where} (step {saved.step:,})",
    )


def _filled(rows: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Rows of good images, and nan for the others: [len(good), ...]."""
    filled = np.full((len(good), *rows.shape[1:]), np.nan, np.float32)
    filled[good] = rows
    return filled


@functools.partial(jax.jit, static_argnames="network")
def _predict(weights: dict[str, Any], images: Array, *, network: ResNet) -> dict[str, Array]:
    """Compiled once for all models of one architecture."""
    return network_outputs(weights, images, model=network, names=("logits", "features"))
