# SPDX-License-Identifier: BSD-3-Clause
"""A trained model for notebooks: parameters, logits, features and tags of pictures.

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
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from etils import epath
from jax import Array
from ml_collections import ConfigDict

from mlimages_jax import configure, saved_model, tagging
from mlimages_jax.calibration import calibrated_probability
from mlimages_jax.data import given_pictures
from mlimages_jax.data.decode import BadPicture
from mlimages_jax.data.given_pictures import Picture, Pictures
from mlimages_jax.data.views import PROTOCOLS, EvaluationView, Protocol
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.losses import POSITIVE_WEIGHT
from mlimages_jax.models import architecture
from mlimages_jax.models.resnet import ResNet
from mlimages_jax.network_outputs import network_outputs
from mlimages_jax.tagging import Tag, Thresholds

LOSSES = ("softmax", "weighted", "sigmoid", "asymmetric")

_THREADS = 8  # that decode


class ModelError(ValueError):
    """A checkpoint that lacks what is asked of it, or does not fit what is given with it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A trained network and what it takes to use it; see `load`.

    Pictures are a path, the bytes of a file, a PIL image or uint8 [H, W, 3] RGB; one of them or
    several. What comes back has an entry a picture, also where it is only one.

    They run in batches that are filled up to 1, 2, 4, ... `max_batch`, so that few programs are
    compiled; what else is in its batch changes a picture's result by rounding at most.

    Attributes:
        params: nested dict of float32 arrays.
        batch_stats: the running statistics of BatchNorm, the same.
        network: that the parameters belong to; `network.apply` computes logits and features.
        hierarchy: names, WordNet ids and parents of the classes; None where nobody gave them.
        loss: "softmax" (one class a picture), "weighted", "sigmoid" or "asymmetric" (several);
            "" where the checkpoint does not say.
        positive_weight: of the weighted loss, by which probabilities are calibrated; else 1.
        view: how a picture is cut.
        max_batch: pictures that run at once.
    """

    params: dict[str, Any]
    batch_stats: dict[str, Any]
    network: ResNet
    hierarchy: Hierarchy | None
    loss: str
    positive_weight: float
    view: EvaluationView
    max_batch: int = 64

    @property
    def image_size(self) -> int:
        """The side of the cut pictures in pixels."""
        return self.view.size

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits float32 [B, C].

        Args:
            images: [B, S, S, 3], RGB: float in [-1, 1], or uint8, which is mapped to it. S need not
                be `image_size`.

        Raises:
            ValueError: another shape or dtype, or numbers outside [-1, 1].
        """
        return self._outputs(given_pictures.checked_images(images))["logits"]

    def features(self, images: np.ndarray) -> np.ndarray:
        """Pooled features float32 [B, F], which the classifier sees; arguments as for `logits`."""
        return self._outputs(given_pictures.checked_images(images))["features"]

    def probabilities(self, pictures: Pictures) -> np.ndarray:
        """Probabilities of all classes, float32 [n, C]; see `probabilities_of`.

        Raises:
            BadPicture: names the picture that cannot be decoded.
            OSError: a file that cannot be read.
            ModelError: as `probabilities_of`.
        """
        self._check_loss()
        rows = [self.probabilities_of(logits) for logits in self._logits_of(pictures)]
        return np.concatenate(rows) if rows else np.zeros((0, self.network.num_classes), np.float32)

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
        pictures: Pictures,
        top_k: int | None = 5,
        *,
        threshold: float | None = None,
        thresholds: Thresholds | None = None,
        consistent: bool = False,
    ) -> list[list[Tag]]:
        """The likeliest classes of every picture, best first.

        Args:
            pictures: one or several.
            top_k: at most so many tags; None sets no such bound.
            threshold: the probability that a tag needs.
            thresholds: of single classes, by WordNet id or index, or a file of these, see
                `tagging.class_limits`; `threshold` is for the others.
            consistent: lower a class that is above one of its ancestors to it first, see
                `tagging.consistent_scores`; for several labels a picture.

        Raises:
            BadPicture: names the picture that cannot be decoded.
            OSError: a file that cannot be read.
            ThresholdError: an unknown class, or a number outside 0 to 1.
            ModelError: classes without names, or no loss; or consistency was asked of a softmax.
        """
        tags_of = self.tagger(
            top_k=top_k, threshold=threshold, thresholds=thresholds, consistent=consistent
        )
        return [tags for logits in self._logits_of(pictures) for tags in tags_of(logits)]

    def tagger(
        self,
        *,
        top_k: int | None = 5,
        threshold: float | None = None,
        thresholds: Thresholds | None = None,
        consistent: bool = False,
    ) -> Callable[[np.ndarray], list[list[Tag]]]:
        """A function from logits [n, C] to the tags of n pictures; arguments as for `tag`.

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
                "consistent=True is for several labels a picture: this model gives one class a "
                "picture, whose probability its ancestors do not share"
            )
        tags_of = tagging.tagger(
            self.hierarchy,
            top_k=top_k,
            threshold=threshold,
            thresholds=thresholds,
            consistent=consistent,
        )
        return lambda logits: tags_of(self.probabilities_of(logits))

    def classify(self, pictures: Pictures, top_k: int = 5) -> list[list[Tag]]:
        """The likeliest classes of pictures that have one class each, with softmax probabilities.

        Raises:
            BadPicture: names the picture that cannot be decoded.
            OSError: a file that cannot be read.
            ModelError: the model was trained for several labels a picture, or has no names.
        """
        if self.loss not in ("softmax", ""):
            raise ModelError(
                f"this model was trained for several labels a picture (loss {self.loss!r}): use tag"
            )
        return self.tag(pictures, top_k)

    def cut(self, picture: Picture) -> np.ndarray:
        """What the network sees of one picture: [S, S, 3], or [10, S, S, 3] of ten crops.

        Raises:
            BadPicture: it cannot be decoded.
            OSError: the file cannot be read.
        """
        upright = self.view.exif_orientation
        return self.view.cut(given_pictures.pixels(picture, exif_orientation=upright))

    def _check_loss(self) -> None:
        if not self.loss:
            raise ModelError(
                "this checkpoint does not say with which loss it was trained: give load(..., "
                "loss='softmax') for one class a picture, else weighted, sigmoid or asymmetric"
            )

    def _logits_of(self, pictures: Pictures) -> Iterator[np.ndarray]:
        """Yields float32 [n, C], a few pictures at a time."""
        listed = given_pictures.as_list(pictures)
        views = 10 if self.view.protocol == "ten_crop" else 1
        at_once = max(1, self.max_batch // views)
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(listed), at_once):
                part = enumerate(listed[start : start + at_once], start)
                images = list(pool.map(lambda numbered: self._named_cut(*numbered), part))
                yield self._outputs(np.stack(images))["logits"]

    def _named_cut(self, position: int, picture: Picture) -> np.ndarray:
        try:
            return self.cut(picture)
        except BadPicture as error:
            name = given_pictures.name_of(picture, position)
            raise BadPicture(error.reason, f"{name}: {error}") from error

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
    protocol: Protocol = "short_side",
    loss: str | None = None,
    exif_orientation: bool | None = None,
    place: jax.sharding.Sharding | None = None,
) -> Model:
    """Loads a model from a checkpoint or an export, with the averaged weights where it has them.

    Args:
        path: a workdir, its checkpoints folder, one step, or a file of `convert to-safetensors`.
        dictionary: the category file of the classes; None: the one in the checkpoint's workdir, or
            in the file.
        image_size: side of the cut pictures in pixels; None: as the checkpoint was trained.
        dtype: of activations: "float32" (in full precision on any device) or "bfloat16", which is
            faster on accelerators and a little less exact.
        protocol: how pictures are cut, see `EvaluationView`.
        loss: with which it was trained; None: as the checkpoint says.
        exif_orientation: turn pictures upright as their EXIF data say; None: if the checkpoint was
            trained on such pictures, or does not say.
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
    compute_dtype = configure.compute_dtype(dtype)
    if protocol not in PROTOCOLS:
        raise ModelError(f"protocol={protocol!r} is none of {', '.join(PROTOCOLS)}")
    alone = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    saved = saved_model.read(path, place=place or alone)
    network = architecture.network_of(saved.weights["params"], dtype=compute_dtype)
    settings = _settings(saved.config, loss)
    size = image_size or saved.image_size
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
        loss=settings.loss.name,
        positive_weight=configure.positive_weight(settings),
        view=EvaluationView(
            size, protocol, saved_model.turns_upright(saved.config, exif_orientation)
        ),
    )


@functools.partial(jax.jit, static_argnames="network")
def _predict(weights: dict[str, Any], images: Array, *, network: ResNet) -> dict[str, Array]:
    """Compiled once for all models of one architecture."""
    return network_outputs(weights, images, model=network, names=("logits", "features"))


def _settings(config: dict[str, Any], loss: str | None) -> ConfigDict:
    """The configuration of the training; `loss` wins over what it says.

    Raises:
        ModelError: for an unknown loss.
    """
    settings = ConfigDict({"loss": {"name": "", "weighted": {"positive_weight": POSITIVE_WEIGHT}}})
    settings.update(config)
    settings.loss.name = loss or settings.loss.name
    if settings.loss.name not in (*LOSSES, ""):
        raise ModelError(f"loss={settings.loss.name!r} is none of {', '.join(LOSSES)}")
    return settings
