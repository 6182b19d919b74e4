# SPDX-License-Identifier: BSD-3-Clause
"""Opens the training data and makes its batches on the devices."""

from collections.abc import Callable, Sequence

import jax
from etils import epath
from jax.sharding import Mesh

from mlimages_jax.data import pipeline
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.device_batches import DeviceBatches
from mlimages_jax.data.folds import Fold, Subset
from mlimages_jax.data.order import ProcessRows
from mlimages_jax.data.records import RandomAccess
from mlimages_jax.settings import Train, build
from mlimages_jax.step.stages import Stage


def training_inputs(
    config: Train, data: DataSet, mesh: Mesh, workdir: epath.Path
) -> Callable[..., DeviceBatches]:
    """Opens the training split and returns a function that makes the batches of a stage.

    Args:
        config: Settings of the training.
        data: The data set.
        mesh: Mesh over all devices.
        workdir: Folder for the list of bad images.

    Returns:
        A function of a stage and `start_step`, the updates already done in it. The files stay open
        and bad images stay counted from one stage to the next.
    """
    num_streams = build.num_streams(config)
    process = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    rows = ProcessRows(batch_size=config.batch_size, num_streams=num_streams, **process)
    streams: Sequence[RandomAccess] = data.streams(
        config.data.train_split, count=num_streams, served=rows.streams
    )
    if config.data.fold:  # only with the order `global`, where there is a single stream
        fold = Fold(*config.data.fold)
        streams = [Subset(records, ~fold.mask(len(records))) for records in streams]
    bad_images = pipeline.BadImages(workdir / "bad_images.tsv", limit=config.input.max_bad_images)

    def inputs(stage: Stage, *, start_step: int) -> DeviceBatches:
        batches = pipeline.training_batches(
            streams,
            build.training_view(config, image_size=stage.image_size),
            batch_size=stage.batch_size,
            num_streams=num_streams,
            max_labels=data.max_labels,
            seed=config.seed,
            start_step=start_step,
            first_image=stage.first_image,
            bad_images=bad_images,
            **process,
            num_threads=config.input.num_threads,
            num_workers=config.input.num_workers,
            prefetch=config.input.prefetch,
        )
        return DeviceBatches(batches, mesh)

    return inputs
