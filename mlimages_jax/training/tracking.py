# SPDX-License-Identifier: BSD-3-Clause
"""Opens the experiment trackers of a training."""

import jax
from etils import epath

from mlimages_jax.distributed import collectives
from mlimages_jax.monitoring.trackers import TrackerError, Trackers
from mlimages_jax.settings import ConfigError, Train, flatten

SHOWN = (  # images and tables of a run's end, for trackers
    "curves.png", "predictions.png", "reliability.png", "metrics.json", "per_class.tsv",
    "confusion.tsv",
)  # fmt: skip


def open_trackers(config: Train, workdir: epath.Path) -> Trackers:
    """Opens the trackers on process 0, which writes for all.

    Raises:
        ConfigError: One of them is not installed, or does not start.
    """
    names = config.tracking.names if jax.process_index() == 0 else ()
    trackers, problem = None, ""
    try:
        project = config.tracking.project
        trackers = Trackers(names, workdir, project=project, settings=flatten(config))
    except TrackerError as error:
        problem = str(error)
    for text in filter(None, collectives.exchanged(problem)):
        raise ConfigError(text)
    assert trackers
    return trackers
