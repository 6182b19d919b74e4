# SPDX-License-Identifier: BSD-3-Clause
"""The command line: `python -m mlimages_jax.main --config=configs/pretrain.py --workdir=W`."""

import sys
from collections.abc import Callable
from logging import WARNING, LogRecord
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

ROOT = Path(__file__).parents[1]
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
    # Imported here: jax takes seconds, which --help and a mistyped flag should not.
    from mlimages_jax import (
        checkpoints,
        classify_pictures,
        configure,
        evaluate_checkpoints,
        export_features,
        progress,
        quickstart,
        train,
    )
    from mlimages_jax.data import picture_source, pipeline, sources

    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().addFilter(_is_for_people)
    tasks: dict[str, Callable[..., Any]] = {
        "train": train.train,
        "quickstart": quickstart.quickstart,
        "evaluate": evaluate_checkpoints.evaluate,
        "classify": classify_pictures.classify,
        "export_features": export_features.export,
    }
    config = _CONFIG.value
    if config.task not in tasks:
        sys.exit(f"task={config.task!r} in the config is none of {sorted(tasks)}")
    try:
        tasks[config.task](config, _WORKDIR.value)
    except (
        FileNotFoundError,
        checkpoints.CheckpointMismatchError,
        configure.ConfigError,
        picture_source.PictureSourceError,
        pipeline.TooManyBadPicturesError,
        sources.DataSetError,
        progress.NonFiniteError,
    ) as error:
        sys.exit(f"error: {error}")


def _is_for_people(record: LogRecord) -> bool:
    """Our own lines and every warning; the libraries tell of each array they save."""
    path = Path(record.pathname)
    ours = any(path.is_relative_to(ROOT / name) for name in ("mlimages_jax", "tfds_builders"))
    return ours or record.levelno >= WARNING


def run() -> None:
    """Entry point."""
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)


if __name__ == "__main__":
    run()
