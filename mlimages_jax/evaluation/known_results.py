# SPDX-License-Identifier: BSD-3-Clause
"""Recognises evaluations that were already made: with the same weights, data and settings."""

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np
from etils import epath

from mlimages_jax.checkpoints.saved_model import SavedModel
from mlimages_jax.checkpoints.weights_digest import weights_digest
from mlimages_jax.data import fingerprint
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.images.views import EvaluationView
from mlimages_jax.distributed import agreement
from mlimages_jax.settings import Evaluate

Row = dict[str, Any]  # a line of results.jsonl
Thresholds = tuple[np.ndarray, str] | None  # float64 [C], and where they are from


def result_key(
    config: Evaluate,
    checkpoint: SavedModel,
    view: EvaluationView,
    own: Thresholds,
) -> Row:
    """Returns what identifies an evaluation on given data: the network, and how it is used."""
    used = checkpoint.usage(loss=config.loss).loss_settings
    arguments = getattr(used, used.name, None)
    loss = {"name": used.name, **(dataclasses.asdict(arguments) if arguments else {})}
    return {
        "split": config.data.split,
        "size": view.size,
        # `protocol` and `averaged` are the keys of version 0.1, so that its results stay known.
        "protocol": view.name,
        "labels": config.data.real_labels,
        "averaged": config.ema,
        "dtype": config.dtype,
        "orientation": "exif" if view.exif_orientation else "stored",
        "weights": weights_digest(checkpoint.weights),
        "loss_settings": json.dumps(loss, sort_keys=True),
        "threshold": config.evaluation.threshold,
        # Only if there are any, so that results from before there were thresholds stay known.
        **({"thresholds": hashlib.sha256(own[0].tobytes()).hexdigest()[:16]} if own else {}),
    }


def data_key(config: Evaluate, data: DataSet) -> Row:
    """Returns digests of the data set and of its replaced labels, the same on all processes.

    Raises:
        DifferentProcessesError: If the processes see different files.
    """
    parts = fingerprint.fingerprint(data, [config.data.split])
    found = {"data_digest": "-".join(parts.values()), "labels_digest": ""}
    if config.data.real_labels:
        labels = epath.Path(config.data.real_labels).read_bytes()
        found["labels_digest"] = hashlib.sha256(labels).hexdigest()[:16]
    agreement.check_same(found)
    return found


def known_result(rows: list[Row], key: Row, *, step: int) -> Row | None:
    """Returns the result of the same evaluation, if its tables were not overwritten since."""
    # The folders of tables are named by step, split, view and size only: a later evaluation that
    # differs elsewhere, such as in its labels, has overwritten them.
    named = {name: key[name] for name in ("split", "size", "protocol")} | {"step": step}
    last = [row for row in rows if named.items() <= row.items()][-1:]
    return next((row for row in last if key.items() <= row.items()), None)
