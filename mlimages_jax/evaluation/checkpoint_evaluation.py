# SPDX-License-Identifier: BSD-3-Clause
"""Prepares the evaluation of a checkpoint: loads it, checks its classes, and sets up the pass."""

from etils import epath

from mlimages_jax.checkpoints import saved_model
from mlimages_jax.checkpoints.saved_model import SavedModel
from mlimages_jax.data import pipeline
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.images.views import EvaluationView
from mlimages_jax.data.real_labels import RealLabels
from mlimages_jax.distributed import sharding
from mlimages_jax.evaluation.evaluate import Evaluation, empty_metrics
from mlimages_jax.labels.class_map import same_classes
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.models import architecture
from mlimages_jax.settings import build
from mlimages_jax.settings.tasks import Reading


def check_batch(batch_size: int, *, name: str) -> None:
    """Checks that a batch size is divisible by the number of devices; `name` is its setting.

    Raises:
        ConfigError: If it is not.
    """
    try:
        mesh = sharding.make_mesh()
        sharding.check_batch(batch_size=batch_size, group_size=None, mesh=mesh)
    except ValueError as error:
        raise build.ConfigError(str(error).replace("batch_size", name, 1)) from error


def load_to_evaluate(folder: epath.Path, data: DataSet, *, loss: str, ema: bool) -> SavedModel:
    """Loads the weights and configuration of a checkpoint with the classes of the data set.

    Args:
        folder: A step.
        data: The data set.
        loss: Loss of the training; "" for the checkpoint's.
        ema: Whether to prefer the EMA weights.

    Raises:
        ConfigError: If the classes differ, or the loss is unknown.
    """
    # Replicated, however they were sharded in training: each device evaluates its own rows.
    replicated = sharding.replicated(sharding.make_mesh())
    checkpoint = saved_model.read(folder, sharding=replicated, ema=ema)
    usage = checkpoint.usage(loss=loss)
    if not usage.loss:
        raise build.ConfigError(
            f"{folder} does not say with which loss it was trained: give --config.loss=softmax "
            "for one class per image, else weighted, sigmoid, asymmetric, focal or two_way"
        )
    classes = architecture.network_of(checkpoint.weights["params"]).num_classes
    if classes != data.num_classes:
        raise build.ConfigError(
            f"{folder} has {classes} classes but {data.folder} has {data.num_classes}: "
            "evaluate it on the set it was trained for, or finetune it on this one first"
        )
    kept = checkpoint.hierarchy
    if kept and not same_classes(kept, Hierarchy.from_file(data.class_list)):
        raise build.ConfigError(
            f"{checkpoint.classes_file} and {data.class_list} have different classes or another "
            "order: build the set with the class list that the checkpoint was trained with"
        )
    return checkpoint


def evaluation_of(
    checkpoint: SavedModel,
    data: DataSet,
    view: EvaluationView,
    reading: Reading,
    *,
    split: str,
    loss: str,
    threshold: float,
    batch_size: int,
    dtype: str,
    workdir: epath.Path,
    relabel: RealLabels | None = None,
) -> Evaluation:
    """Sets up the evaluation of a checkpoint on a split.

    Args:
        checkpoint: From `load_to_evaluate`.
        data: The data set.
        view: How images are cropped.
        reading: How images are read.
        split: Split of the data set.
        loss: Loss of the training; "" for the checkpoint's.
        threshold: Minimum confidence of a true label.
        batch_size: Images per batch, over all devices.
        dtype: Type of activations.
        workdir: Folder for the list of bad images.
        relabel: Replaces the labels of records.
    """
    records = data.records(split)
    used = checkpoint.usage(loss=loss).loss_settings
    metrics = empty_metrics(
        len(records),
        Hierarchy.from_file(data.class_list).paths(),
        single_label=build.is_single_label(used),
        threshold=threshold,
        positive_weight=build.positive_weight(used),
    )
    compute_dtype = build.compute_dtype(dtype)
    return Evaluation(
        model=architecture.network_of(checkpoint.weights["params"], dtype=compute_dtype),
        loss=build.evaluation_loss(used),
        records=records,
        view=view,
        metrics=metrics,
        batch_size=batch_size,
        max_labels=relabel.max_labels if relabel else data.max_labels,
        mesh=sharding.make_mesh(),
        missing_labels=data.missing_labels,
        relabel=relabel,
        bad_images=pipeline.BadImages(workdir / "bad_images.tsv", limit=reading.max_bad_images),
        num_threads=reading.num_threads,
        num_workers=reading.num_workers,
    )
