# SPDX-License-Identifier: BSD-3-Clause
"""One pass over a data set: predictions on the device, sums of metrics on the host."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh

from mlimages_jax.data import pipeline
from mlimages_jax.data.device_batches import DeviceBatches, one_behind
from mlimages_jax.data.images import views
from mlimages_jax.data.records import RandomAccess, Record
from mlimages_jax.distributed import collectives, preemption, sharding
from mlimages_jax.metrics.multi_label import MultiLabelMetrics
from mlimages_jax.metrics.single_label import SingleLabelMetrics
from mlimages_jax.step import steps
from mlimages_jax.step.compiler_options import compiler_options
from mlimages_jax.step.losses import Loss

EXACT_METRICS_BYTES = 4_000_000_000  # scores and states; the mAP of larger sets is binned

Metrics = MultiLabelMetrics | SingleLabelMetrics
Weights = dict[str, Any]  # {"params", "batch_stats"}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """An evaluation of a data set; created once, run at any training step.

    Attributes:
        model: The network.
        loss: The loss to report; all its classes should have weight 1.
        records: Serialised records, all of them on every process.
        view: Decodes and crops the images.
        metrics: Empty metrics; every run fills a fresh copy made with the same arguments.
        batch_size: Global batch size, divisible by the number of devices.
        max_labels: Maximum number of labels per image, L.
        mesh: The mesh of the parameters.
        missing_labels: Target of a class that is not among an image's labels, 0 (absent) or -1
            (unknown).
        relabel: Replaces the labels of a record; None keeps them.
        bad_images: Records images that cannot be decoded, which are left out of the metrics.
        num_threads: Number of threads that read and decode.
        num_workers: Number of worker processes that share them; 0: none.
    """

    model: nn.Module
    loss: Loss
    records: RandomAccess
    view: views.EvaluationView
    metrics: Metrics
    batch_size: int
    max_labels: int
    mesh: Mesh
    missing_labels: float = 0.0
    relabel: Callable[[Record], Record] | None = None
    bad_images: pipeline.BadImages | None = None
    num_threads: int = 4
    num_workers: int = 0

    def run(
        self, weights: Weights, *, check_stop: Callable[[], None] = preemption.check
    ) -> tuple[dict[str, float], Metrics]:
        """Evaluates parameters and running statistics without changing anything.

        Args:
            weights: The weights to evaluate.
            check_stop: Called after every batch, equally often on all processes.

        Returns:
            The metrics by name, including `loss`, the mean over examples (omitted with replaced
            labels, which the loss was not designed for); and the accumulators.

        Raises:
            Preempted: If `check_stop` finds that the program was asked to stop.
        """
        metrics = dataclasses.replace(self.metrics)  # runs __post_init__, so the copy is empty
        loss_sum, rows = 0.0, 0
        # One behind: the devices compute the next batch while the host counts this one.
        for outputs in one_behind(self.outputs(weights, self.records)):
            mask = sharding.local_rows(outputs["mask"])
            metrics.update(
                sharding.local_rows(outputs["logits"]),
                sharding.local_rows(outputs["targets"]),
                mask,
            )
            loss_sum += float(jax.device_get(outputs["loss_sum"]))  # the same on all processes
            rows += int(mask.sum())
            check_stop()
        metrics = across_processes(metrics)
        # Counted, because images that cannot be read are masked out: there may be fewer than
        # records.
        rows = int(collectives.gathered(np.array(rows)).sum())
        loss = {} if self.relabel else {"loss": loss_sum / max(rows, 1)}
        return loss | metrics.compute(), metrics

    def outputs(self, weights: Weights, records: RandomAccess) -> Iterator[dict[str, Array]]:
        """Yields `steps.eval_step` of every global batch of the records, still on the devices."""
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
            num_workers=self.num_workers,
        )
        for batch in DeviceBatches(batches, self.mesh):
            yield self._step(weights["params"], weights["batch_stats"], batch)

    @functools.cached_property
    def _step(self) -> Any:
        rows = sharding.by_example(self.mesh)  # `sharding.local_rows` relies on this layout
        shardings = {"logits": rows, "targets": rows, "mask": rows}
        return jax.jit(
            functools.partial(
                steps.eval_step,
                model=self.model,
                loss=self.loss,
                missing_labels=self.missing_labels,
            ),
            out_shardings=shardings | {"loss_sum": sharding.replicated(self.mesh)},
            compiler_options=compiler_options(self.mesh.devices.flat),
        )


def empty_metrics(
    num_examples: int,
    paths: np.ndarray,
    *,
    single_label: bool,
    threshold: float,
    positive_weight: float = 1.0,
) -> Metrics:
    """Returns empty metrics for one class per image, or for several.

    Args:
        num_examples: Number of images; the mAP is exact while their scores and states fit into
            EXACT_METRICS_BYTES.
        paths: Integers [C, D] from `Hierarchy.paths`.
        single_label: Whether every image has exactly one class.
        threshold: Minimum confidence of a positive label, for several classes per image.
        positive_weight: Weight of positives in the training loss, to calibrate probabilities.
    """
    if single_label:
        return SingleLabelMetrics(len(paths))
    exact = num_examples * len(paths) * 5 <= EXACT_METRICS_BYTES  # float32 score + int8 state
    return MultiLabelMetrics(
        len(paths), paths, threshold=threshold, exact=exact, positive_weight=positive_weight
    )


def why_no_map(values: dict[str, float], metrics: Metrics) -> str | None:
    """Explains why the mean average precision is nan; None if it is a number or not computed."""
    if not isinstance(metrics, MultiLabelMetrics) or not math.isnan(values["mAP"]):
        return None
    images, threshold = int(values["examples"]), metrics.threshold
    if not images:
        return "mAP is nan: no image has a class that is known to be present or absent"
    return (
        f"mAP is nan: none of {images} images has a positive class, which needs a confidence of at "
        f"least evaluation.threshold={threshold:g}: lower --config.evaluation.threshold, or "
        "give a split whose images have labels"
    )


def across_processes(metrics: Metrics) -> Metrics:
    """Sums metrics over all processes; returns the same object if there is only one process."""
    if jax.process_count() == 1:
        return metrics
    gathered = collectives.gathered(metrics.sums())
    total = dataclasses.replace(metrics)  # runs __post_init__, so the copy is empty
    for process in range(jax.process_count()):
        total.add_sums({name: values[process] for name, values in gathered.items()})
    return total
