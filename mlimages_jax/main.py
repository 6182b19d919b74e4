# SPDX-License-Identifier: BSD-3-Clause
"""The command line: `python -m mlimages_jax.main --config=configs/pretrain.py --workdir=W`."""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file of configs/, e.g. configs/pretrain.py:paper"
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints, metrics and logs.")


def main(argv: list[str]) -> None:
    """Runs the task that the config names."""
    if len(argv) > 1:
        raise app.UsageError(
            f"unexpected arguments {argv[1:]}: values are set by --config.name=value"
        )
    from mlimages_jax import (
        checkpoints,
        configure,
        progress,
        quickstart,
        train,
    )  # not before --help

    logging.set_verbosity(logging.INFO)
    tasks = {"train": train.train, "quickstart": quickstart.quickstart}
    config = _CONFIG.value
    if config.task not in tasks:
        sys.exit(f"task={config.task!r} in the config is none of {sorted(tasks)}")
    try:
        tasks[config.task](config, _WORKDIR.value)
    except (
        FileNotFoundError,
        checkpoints.CheckpointMismatchError,
        configure.ConfigError,
        progress.NonFiniteError,
    ) as error:
        sys.exit(f"error: {error}")


def run() -> None:
    """Entry point."""
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)


if __name__ == "__main__":
    run()
