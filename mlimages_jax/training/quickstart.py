# SPDX-License-Identifier: BSD-3-Clause
"""The quickstart: draws a small data set, trains on it, and says what to look at and try next."""

import jax
from absl import logging
from etils import epath
from jax.experimental import multihost_utils

from mlimages_jax.distributed import workdir_lock
from mlimages_jax.files import paths
from mlimages_jax.settings import Train, replaced
from mlimages_jax.training.train import train
from tfds_builders import shapes

WHAT_NEXT = """
Done. Look at
  {workdir}/predictions.png    validation images with true and predicted tags
  {workdir}/per_class.tsv      average precision of every class
  {workdir}/metrics.jsonl      all numbers by step
  {workdir}/events             the same for TensorBoard (pip install tensorboard)

Try next
  train on your own images     mlimages data import FOLDER --dry-run
                               says what they are and which commands come next; give the folder
                               that the last one prints as --config.data.folder, with this config
  another loss                 --config.loss.name=sigmoid or asymmetric, with another --workdir
  the real thing               --config=configs/pretrain.py
"""


def quickstart(config: Train, workdir: epath.PathLike, *, started: float | None = None) -> None:
    """Builds the drawn data set where `config.data.folder` is empty, trains, prints what is next.

    Args:
        config: of configs/quickstart.py.
        workdir: the data set goes to workdir/data.
        started: as for `train.train`.

    Raises:
        Exception: what `train.train` raises.
    """
    workdir = paths.absolute(workdir)
    with workdir_lock.held(workdir, task="quickstart"):
        train(_with_data(config, workdir), workdir, started=started)
    print(WHAT_NEXT.format(workdir=workdir))


def _with_data(config: Train, workdir: str) -> Train:
    """The settings with a data set, which is drawn where they name none."""
    if config.data.folder:
        return config
    data_dir = epath.Path(workdir) / "data"
    logging.info("drawing the data set `shapes` into %s (once)", data_dir)
    folder = ""
    for process in range(jax.process_count()):  # in turn: on a shared disk the first one draws
        if process == jax.process_index():
            folder = str(shapes.build(data_dir))
        multihost_utils.sync_global_devices(f"drawn by {process}")
    return replaced(config, {"data.folder": folder})
