# SPDX-License-Identifier: BSD-3-Clause
"""One pass over a set: predictions on the device, sums of metrics on the host."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from mlimages_jax.data import pipeline
from mlimages_jax.data.dataset import RandomAccess, Record
from mlimages_jax.data.images import views
from mlimages_jax.distributed import preemption, sharding
from mlimages_jax.metrics.multi_label import MultiLabelMetrics
from mlimages_jax.metrics.single_label import SingleLabelMetrics
from mlimages_jax.step import steps
from mlimages_jax.step.losses import Loss

EXACT_METRICS_BYTES = 4_000_000_000  # of scores and states, from which on the mAP is binned

Metrics = MultiLabelMetrics | SingleLabelMetrics
Weights = dict[str, Any]  # {"params", "batch_stats"}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How a set is evaluated; made once, run at any step.

    Attributes:
        model: the network.
        loss: its value with every class weighing 1 is reported.
        records: serialised records, all of them on every process.
        view: cuts the images.
        metrics: empty; every run fills a fresh one made with the same arguments.
        batch_size: global, divisible by the devices.
        max_labels: L.
        mesh: of the parameters.
        unlisted: the target of a class that an image does not list, 0 (absent) or -1 (unknown).
        relabel: gives the records other labels; None leaves theirs.
        bad_images: records what cannot be decoded, which stays out of the metrics.
        num_threads: that read and decode.
    """

    model: nn.Module
    loss: Loss
    records: RandomAccess
    view: views.EvaluationView
    metrics: Metrics
    batch_size: int
    max_labels: int
    mesh: Mesh
    unlisted: float = 0.0
    relabel: Callable[[Record], Record] | None = None
    bad_images: pipeline.BadImages | None = None
    num_threads: int = 4

    def run(
        self, weights: Weights, *, check_stop: Callable[[], None] = preemption.check
    ) -> tuple[dict[str, float], Metrics]:
        """Evaluates parameters and running statistics, without changing anything.

        Args:
            weights: to evaluate.
            check_stop: called after every batch, equally often on all processes.

        Returns:
            The metrics by name, with `loss`, the mean over examples (left out with other labels,
            which the loss was not made for); and the accumulators.

        Raises:
            Preempted: by `check_stop`, when the program was asked to end.
        """
        metrics = dataclasses.replace(self.metrics)  # made anew, hence empty
        loss_sum, rows = 0.0, 0
        for outputs in one_behind(self.outputs(weights, self.records)):
            mask = local_rows(outputs["mask"])
            metrics.update(local_rows(outputs["logits"]), local_rows(outputs["targets"]), mask)
            loss_sum += float(jax.device_get(outputs["loss_sum"]))  # the same on all processes
            rows += int(mask.sum())
            check_stop()
        metrics = across_processes(metrics)
        rows = int(np.sum(multihost_utils.process_allgather(np.array(rows))))
        loss = {} if self.relabel else {"loss": loss_sum / max(rows, 1)}
        return loss | metrics.compute(), metrics

    def outputs(self, weights: Weights, records: RandomAccess) -> Iterator[dict[str, Array]]:
        """`steps.eval_step` of every global batch of the records, still on the devices."""
        batches = pipeline.evaluation_batches(
            records,
            self.view,
            batch_size=self.batch_size,
            max_labels=self.max_labels,
            relabel=self.relabel,
            bad_images=self.bad_images,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_threads=self.num_threads,
        )
        for batch in pipeline.DeviceBatches(batches, self.mesh):
            yield self._step(weights["params"], weights["batch_stats"], batch)

    @functools.cached_property
    def _step(self) -> Any:
        rows = sharding.by_example(self.mesh)  # what `local_rows` relies on
        places = {"logits": rows, "targets": rows, "mask": rows}
        return jax.jit(
            functools.partial(
                steps.eval_step, model=self.model, loss=self.loss, unlisted=self.unlisted
            ),
            out_shardings=places | {"loss_sum": sharding.replicated(self.mesh)},
        )


def empty_metrics(
    num_examples: int,
    paths: np.ndarray,
    *,
    single_label: bool,
    threshold: float,
    positive_weight: float = 1.0,
) -> Metrics:
    """The metrics for one class an image, or for many, with nothing counted yet.

    Args:
        num_examples: images of the set; the mAP is exact while their scores and states fit
            EXACT_METRICS_BYTES.
        paths: int [C, D] of `Hierarchy.paths`.
        single_label: whether every image has one class.
        threshold: the confidence from which a label is true, where there are many.
        positive_weight: of the training loss, for the calibration of probabilities.
    """
    if single_label:
        return SingleLabelMetrics(len(paths))
    exact = num_examples * len(paths) * 5 <= EXACT_METRICS_BYTES
    return MultiLabelMetrics(
        len(paths), paths, threshold=threshold, exact=exact, positive_weight=positive_weight
    )


def why_no_map(values: dict[str, float], metrics: Metrics) -> str | None:
    """Why the mean average precision is nan; None where it is a number or there is none."""
    if not isinstance(metrics, MultiLabelMetrics) or not math.isnan(values["mAP"]):
        return None
    images, threshold = int(values["examples"]), metrics.threshold
    if not images:
        return "mAP is nan: no image has a class that is known to be present or absent"
    return (
        f"mAP is nan: no class of any of {images} images is positive, which takes a confidence of "
        f"evaluation.threshold={threshold:g} or more: lower --config.evaluation.threshold, or "
        "give a split whose images have labels"
    )


def one_behind(outputs: Iterator[dict[str, Array]]) -> Iterator[dict[str, Array]]:
    """Yields every item once the next one is under way, so that device and host work together."""
    previous = next(outputs, None)
    for following in outputs:
        assert previous is not None
        yield previous
        previous = following
    if previous is not None:
        yield previous


def local_rows(array: Array) -> np.ndarray:
    """The rows of an array cut by its leading axis that this process holds, in their order."""
    if array.is_fully_replicated:
        return np.asarray(jax.device_get(array))
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([jax.device_get(shard.data) for shard in shards])


def across_processes(metrics: Metrics) -> Metrics:
    """Metrics over what all processes have seen; the same object where there is one process."""
    if jax.process_count() == 1:
        return metrics
    gathered = multihost_utils.process_allgather(metrics.sums())
    total = dataclasses.replace(metrics)  # made anew, hence empty
    for process in range(jax.process_count()):
        total.add_sums({name: values[process] for name, values in gathered.items()})
    return total
