# SPDX-License-Identifier: BSD-3-Clause
"""The task `quickstart`: generates a small data set, trains on it, and suggests what to do next."""

import jax
from absl import logging
from etils import epath

from mlimages_jax.distributed import collectives, workdir_lock
from mlimages_jax.files import paths
from mlimages_jax.settings import Train, replaced
from mlimages_jax.training import what_next
from mlimages_jax.training.train import train
from tfds_builders import shapes

_FILES = {
    "predictions.png": "validation images with true and predicted tags",
    "per_class.tsv": "average precision of every class",
    "metrics.jsonl": "all numbers by step",
    "events": "the same for TensorBoard (pip install tensorboard)",
}
WHAT_NEXT = """
Done. Look at
{files}

Try next
  train on your own images     mlimages data import FOLDER --dry-run
                               says what they are and which commands come next; give the folder
                               that the last one prints as --config.data.folder, with this config
  another loss                 --config.loss.name=sigmoid or asymmetric, with another --workdir
  the real thing               --config=pretrain
"""


def quickstart(config: Train, workdir: epath.PathLike, *, started: float | None = None) -> None:
    """Generates a data set if `config.data.folder` is empty, trains, and prints what to do next.

    Args:
        config: Settings from configs/quickstart.py.
        workdir: Folder of the run; the data set is written to workdir/data.
        started: As for `train.train`.

    Raises:
        Exception: As for `train.train`.
    """
    workdir = paths.absolute(workdir)
    with workdir_lock.held(workdir, task="quickstart"):
        train(_with_data(config, workdir), workdir, started=started)
    if not config.compile_only and jax.process_index() == 0:  # which writes the files
        print(WHAT_NEXT.format(files=what_next.existing(epath.Path(workdir), _FILES)))


def _with_data(config: Train, workdir: str) -> Train:
    """Returns the settings with a data set, which is generated if they name none."""
    if config.data.folder:
        return config
    data_dir = epath.Path(workdir) / "data"
    logging.info("generating the data set `shapes` in %s (only once)", data_dir)
    folder = ""
    # One process after the other: on a shared disk the first writes the set and the others find it,
    # and on disks of their own each writes one.
    for process in range(jax.process_count()):
        if process == jax.process_index():
            folder = str(shapes.build(data_dir))
        collectives.barrier(f"drawn by {process}")
    return replaced(config, {"data.folder": folder})
