# SPDX-License-Identifier: BSD-3-Clause
"""A model for the tests of the server: its scores are the colours of an image, without JAX."""

import threading
from types import SimpleNamespace

import numpy as np

from mlimages_jax.data.images.views import EvaluationView
from mlimages_jax.inference import tagging
from mlimages_jax.labels.hierarchy import Hierarchy
from tests.support.five_classes import CLASS_LIST

SIZE = 8


class ColourModel:
    """What the server uses of `pretrained.Model`.

    The probability of the class of index i is channel i of the image's mean colour; those of the
    last two are 0. Features are the mean colour itself.
    """

    max_batch = 4
    loss = "weighted"
    image_size = SIZE
    network = SimpleNamespace(num_classes=5, stage_widths=(2, 3))
    view = EvaluationView(SIZE, "short_side")

    def __init__(self, *, class_list: str = CLASS_LIST, limits: tuple[float, ...] = ()):
        self.hierarchy = Hierarchy.from_text(class_list, where="a test")
        self.limits = dict(enumerate(limits))
        self.thresholds = SimpleNamespace(of=lambda _: np.array(limits)) if limits else None
        self.gate = threading.Event()  # closed, it holds every batch
        self.gate.set()
        self.batches: list[int] = []
        self.error: Exception | None = None

    def crop(self, data: bytes) -> np.ndarray:
        return self.view(data)

    def outputs_of(self, images: np.ndarray) -> dict[str, np.ndarray]:
        assert self.gate.wait(60)
        if self.error:
            raise self.error
        self.batches.append(len(images))
        colours = (images.mean((1, 2)) / 255).astype(np.float32)  # [B, 3]
        logits = np.concatenate([colours, np.zeros((len(images), 2), np.float32)], axis=1)
        return {"features": colours, "logits": logits}

    def tagger(self, *, top_k: int | None = 5, threshold: float | None = None):
        own = self._thresholds(threshold)
        return tagging.tagger(self.hierarchy, top_k=top_k, threshold=threshold, thresholds=own)

    def class_limits(self, *, threshold: float | None = None) -> np.ndarray | None:
        own = self._thresholds(threshold)
        return tagging.class_limits(self.hierarchy, threshold=threshold, thresholds=own)

    def _thresholds(self, threshold: float | None) -> dict[str | int, float] | None:
        return {**self.limits} if threshold is None and self.limits else None
