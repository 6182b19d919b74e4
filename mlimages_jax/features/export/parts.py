# SPDX-License-Identifier: BSD-3-Clause
"""The parts of an export: in which order they are computed, and how results become stored rows."""

import math

import jax
import numpy as np
from absl import logging

from mlimages_jax.distributed import preemption
from mlimages_jax.features.export import find_components
from mlimages_jax.features.export.components import Components
from mlimages_jax.features.export.feature_formats import Layout, Part
from mlimages_jax.features.export.feature_writer import FeatureWriter
from mlimages_jax.inference.batch_predict import NO_IMAGE, PredictedRows, Predictions
from mlimages_jax.inference.image_source import ImageSource
from mlimages_jax.settings import build


def order_of_parts(layout: Layout, numbers: np.ndarray, *, batch_size: int) -> np.ndarray:
    """Returns positions, int64 [n], in the order for `Predictions`; parts belong to processes.

    Every part starts with a new batch of its process. The contents of a batch, and so the rounding
    of its outputs, then do not depend on which parts were already done.
    """
    count = jax.process_count()
    rows = batch_size // count
    longest = max((len(numbers[i::count]) for i in range(count)), default=0)
    order = np.full((longest, math.ceil(layout.rows_per_part / rows), count, rows), NO_IMAGE)
    for i, number in enumerate(numbers.tolist()):
        positions = layout.positions(number)
        filled = np.full((order.shape[1], rows), NO_IMAGE)
        filled.reshape(-1)[: len(positions)] = positions
        order[i // count, :, i % count] = filled
    batches = order.reshape(-1, count * rows)
    return batches[(batches != NO_IMAGE).any(1)].reshape(-1)


def write_parts(
    predictions: Predictions,
    layout: Layout,
    source: ImageSource,
    writer: FeatureWriter,
    components: Components | None = None,
) -> None:
    """Passes each part to the writer once its last row is computed; returns when all are stored."""
    collected: list[PredictedRows] = []
    for rows in predictions:
        if not len(rows.positions):
            continue  # only other processes have images left
        collected.append(rows)
        number = int(rows.positions[0]) // layout.rows_per_part
        if rows.positions[-1] == layout.positions(number)[-1]:
            writer.write(_part(number, collected, layout, source, components))
            collected = []
            speed = predictions.speed
            logging.info(
                "part %d of %d  %.1f images/s  waiting for images %.0f%%",
                number + 1, layout.parts, speed.images / speed.seconds,
                100 * speed.reading / speed.seconds,
            )  # fmt: skip
        preemption.check()
    writer.wait()


def _part(
    number: int,
    collected: list[PredictedRows],
    layout: Layout,
    source: ImageSource,
    components: Components | None,
) -> Part:
    """Converts rows to the form in which they are stored.

    Raises:
        ConfigError: If a number is infinite, or becomes so in the stored dtype.
    """
    errors = {position: error for rows in collected for position, error in rows.errors.items()}
    positions = layout.positions(number)
    valid = np.array([position not in errors for position in positions])
    outputs = {}
    for name in layout.widths:
        # What float16 cannot hold becomes infinite, which is reported below with the name of the
        # output.
        with np.errstate(over="ignore"):
            values = np.concatenate([rows.outputs[name] for rows in collected])
            if components and name == find_components.OUTPUT:
                values = components.project(values)
            outputs[name] = values.astype(layout.dtype)
        if not np.isfinite(outputs[name][valid]).all():
            stored = "" if layout.dtype == "float32" else ": try --config.stored_dtype=float32"
            raise build.ConfigError(
                f"{name} of images {positions.start} to {positions.stop - 1} has values that "
                f"are not finite as {layout.dtype}{stored or ': the checkpoint is damaged'}"
            )
    return Part(
        number,
        names=[source.names[position] for position in positions],
        labels=[source.labels(position) for position in positions],
        errors=[errors.get(position, "") for position in positions],
        outputs=outputs,
    )
