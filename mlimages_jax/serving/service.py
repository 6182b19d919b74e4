# SPDX-License-Identifier: BSD-3-Clause
"""A model behind a queue: decodes images in threads, batches them, and converts outputs to tags."""

import asyncio
import functools
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

import numpy as np
from absl import logging

from mlimages_jax.data.images.decode import BadImage, read_header
from mlimages_jax.inference import tagging
from mlimages_jax.inference.tagging import Tag
from mlimages_jax.serving.batcher import Batcher, Outputs, batch_sizes
from mlimages_jax.serving.limits import Limits, Quota, RefusedError
from mlimages_jax.serving.metrics import Metrics
from mlimages_jax.serving.nearest import Nearest, NearestImages
from mlimages_jax.serving.uploads import Upload

if TYPE_CHECKING:  # the tests of this room run without JAX
    from mlimages_jax.inference.model import Model

State = Literal["starting", "ready", "draining", "failed"]

MAX_TAGS = 1_000  # of an image; more would be a long answer that nobody reads
MAX_NEAREST = 100

_DECODERS = min(8, os.cpu_count() or 1)
_TIMED = 3  # batches of each size, the fastest of which counts
_LONGEST_RETRY = 60  # seconds
_LONGEST_COMPILATION = 60  # seconds of one batch size that a stop waits for
_TAGGERS = 64  # pairs of k and threshold whose limits by class are kept


class Service:
    """The endpoint without HTTP.

    Args:
        model: The model; its `max_batch` is the largest batch.
        delay: Seconds that an image waits for others to share its batch.
        limits: Limits of requests.
        nearest: Images among which the nearest ones are found; None: that is not offered.
        tell: Called with a line when it is ready.
    """

    def __init__(
        self,
        model: "Model",
        *,
        delay: float = 0.005,
        limits: Limits | None = None,
        nearest: NearestImages | None = None,
        tell: Callable[[str], None] = logging.info,
    ):
        self.model = model
        self.limits = limits or Limits()
        self.nearest = nearest
        self.state: State = "starting"
        self.failure: Exception | None = None
        self.images = Quota(self.limits.queue)
        self.bytes = Quota(self.limits.bytes_in_flight)
        self.metrics = Metrics()
        self.metrics.watch(
            "queue_images", "Images from their arrival to their result", lambda: self.images.used
        )
        self.metrics.watch("held_bytes", "Bytes of request bodies", lambda: self.bytes.used)
        self.metrics.watch("ready", "1 if requests are taken", lambda: self.state == "ready")
        self._delay = delay
        self._tell = tell
        self._batcher: Batcher | None = None
        self._starter = threading.Thread(target=self._start, name="compiler", daemon=True)
        self._decoders = ThreadPoolExecutor(_DECODERS, thread_name_prefix="decoder")
        self.tagger = functools.lru_cache(_TAGGERS)(self._new_tagger)

    def start(self) -> None:
        """Compiles the network in a thread; `state` is "ready" or "failed" afterwards."""
        self._starter.start()

    def _start(self) -> None:
        try:
            self.tagger(5, None)  # refuses models that cannot tag, and computes their limits
            seconds = {}
            for size in batch_sizes(self.model.max_batch):
                seconds[size] = self._seconds_of_batch(size)
                if self.state != "starting":
                    return  # stopped before it was ready
            batcher = Batcher(
                self.model.outputs_of,
                seconds=seconds,
                delay=self._delay,
                observe=self.metrics.count_batch,
            )
        except Exception as error:  # any: the server reports it and ends
            self.failure = error
            self.state = "failed"
            return
        self._batcher = batcher
        if self.state == "starting":  # a signal may have set it to "draining" meanwhile
            self.state = "ready"
        sizes = ", ".join(f"{size}: {1e3 * second:.3g}" for size, second in seconds.items())
        self._tell(f"ready: {batcher.images_per_second:.4g} images/s; ms by batch size {sizes}")

    def _seconds_of_batch(self, size: int) -> float:
        images = np.stack([self.model.view.empty] * size)
        self.model.outputs_of(images)  # compiles
        fastest = math.inf
        for _ in range(_TIMED):
            begin = time.perf_counter()
            self.model.outputs_of(images)
            fastest = min(fastest, time.perf_counter() - begin)
        return fastest

    def drain(self) -> None:
        """Reports from now on that it is not ready; requests are still answered."""
        self.state = "draining"

    def close(self) -> None:
        """Finishes the images that were taken, and ends the threads."""
        self.drain()
        self._starter.join(_LONGEST_COMPILATION)
        self._decoders.shutdown()
        if self._batcher:
            self._batcher.close()

    @property
    def retry_after(self) -> int:
        """Estimated seconds until the queue is empty, from 1 to 60."""
        rate = self._batcher.images_per_second if self._batcher else 1.0
        return min(_LONGEST_RETRY, max(1, math.ceil(self.images.used / rate)))

    def check_can_answer(self) -> None:
        """Refuses requests before the network is compiled.

        Raises:
            RefusedError: With status 503.
        """
        if self._batcher is None:
            message = "the network is still being compiled"
            raise RefusedError(503, "starting", message, retry_after=self.retry_after)

    async def outputs(self, uploads: Sequence[Upload]) -> list[Outputs | BadImage]:
        """Computes the network's outputs for each image, or returns why it cannot be read."""
        return await asyncio.gather(*(self._output(upload.data) for upload in uploads))

    async def _output(self, data: bytes) -> Outputs | BadImage:
        assert self._batcher
        loop = asyncio.get_running_loop()
        try:
            image = await loop.run_in_executor(self._decoders, self._decoded, data)
        except BadImage as bad:
            self.metrics.count_image(bad.reason)
            return bad
        outputs = await asyncio.wrap_future(self._batcher.submit(image))
        self.metrics.count_image("ok")
        return outputs

    def _decoded(self, data: bytes) -> np.ndarray:
        """Decodes and crops; bytes and pixels are limited before a decoder sees the file."""
        if len(data) > self.limits.image_bytes:
            message = (
                f"the file has {len(data) / 1e6:.1f} MB: at most "
                f"{self.limits.image_bytes / 1e6:g} MB are allowed"
            )
            raise BadImage("too_large", message)
        header = read_header(data)
        if header.width * header.height > self.limits.pixels:
            message = (
                f"the image has {header.width} x {header.height} pixels: at most "
                f"{self.limits.pixels:,} are allowed"
            )
            raise BadImage("too_large", message)
        return self.model.crop(data)

    async def tags(
        self, outputs: Sequence[Outputs], *, k: int | None, threshold: float | None
    ) -> list[list[Tag]]:
        """Returns the tags of images, at most k of each; None: see `usual_top_k`."""
        if not outputs:
            return []
        logits = np.stack([one["logits"] for one in outputs])
        loop = asyncio.get_running_loop()
        # Sorting 11,166 probabilities an image would hold up all other connections.
        return await loop.run_in_executor(
            self._decoders, lambda: self.tagger(k, threshold)(logits)
        )  # fmt: skip

    async def nearest_images(self, outputs: Sequence[Outputs], *, k: int) -> list[list[Nearest]]:
        """Returns the nearest images of the export for each image; none without an export."""
        if not outputs or not k or self.nearest is None:
            return [[] for _ in outputs]
        features = np.stack([one["features"] for one in outputs])
        search = functools.partial(self.nearest.of, features, k=k)
        return await asyncio.get_running_loop().run_in_executor(self._decoders, search)

    async def thumbnail(self, row: int) -> bytes:
        """Returns a small JPEG of an image of the export.

        Raises:
            RefusedError: With status 404.
        """
        try:
            if self.nearest is None:
                raise BadImage("missing", "this server has no export")
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._decoders, self.nearest.thumbnail, row)
        except BadImage as error:
            raise RefusedError(404, error.reason, str(error)) from error

    def _new_tagger(
        self, k: int | None, threshold: float | None
    ) -> Callable[[np.ndarray], list[list[Tag]]]:
        if k is None:
            limits = self.model.class_limits(threshold=threshold)
            k = tagging.usual_top_k(limits, one_class=self.model.loss == "softmax")
        return self.model.tagger(top_k=min(k or MAX_TAGS, MAX_TAGS), threshold=threshold)

    @functools.cached_property
    def class_thresholds(self) -> np.ndarray | None:
        """The threshold of every class, if the model has them."""
        thresholds, hierarchy = self.model.thresholds, self.model.hierarchy
        return thresholds.of(hierarchy) if thresholds and hierarchy else None
