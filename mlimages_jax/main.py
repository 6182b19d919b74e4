# SPDX-License-Identifier: BSD-3-Clause
"""The command line: `python -m mlimages_jax.main --config=configs/pretrain.py --workdir=W`."""

import errno
import functools
import os
import sys
import time
import traceback
from collections.abc import Callable
from logging import WARNING, LogRecord
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from mlimages_jax import preemption
from mlimages_jax.escaping import several_lines

ROOT = Path(__file__).parents[1]
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file of configs/, e.g. configs/pretrain.py:paper"
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints, metrics and logs.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator_address", None, "HOST:PORT of process 0, where jax does not find it by itself."
)
_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes work together.")
_PROCESS = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
_PEER_TIMEOUT = flags.DEFINE_float(
    "peer_timeout", 300, "Seconds to wait for the other processes.", lower_bound=1
)


def main(argv: list[str]) -> None:
    """Runs the task that the config names."""
    if len(argv) > 1:
        raise app.UsageError(
            f"unexpected arguments {argv[1:]}: values are set by --config.name=value"
        )
    started = time.time()
    preemption.watch()
    # Imported here: jax takes seconds, which --help and a mistyped flag should not.
    from mlimages_jax import (
        checkpoint_fit,
        checkpoints,
        classify_pictures,
        configure,
        distributed,
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
        "train": functools.partial(train.train, started=started),
        "quickstart": quickstart.quickstart,
        "evaluate": evaluate_checkpoints.evaluate,
        "classify": classify_pictures.classify,
        "export_features": export_features.export,
    }
    config = _CONFIG.value
    if config.task not in tasks:
        sys.exit(f"task={config.task!r} in the config is none of {sorted(tasks)}")
    workdir: str = _WORKDIR.value or ""  # never empty: the flag is required
    _keep_compiled_programs(workdir)
    others = distributed.together(
        _COORDINATOR.value, _PROCESSES.value, _PROCESS.value, timeout=_PEER_TIMEOUT.value
    )
    try:
        with others:
            try:
                tasks[config.task](config, workdir)
            except (
                FileNotFoundError,
                checkpoint_fit.CheckpointMismatchError,
                checkpoints.CheckpointWriteError,
                configure.ConfigError,
                picture_source.PictureSourceError,
                pipeline.TooManyBadPicturesError,
                sources.DataSetError,
                progress.NonFiniteError,
            ) as error:
                sys.exit(several_lines(f"error: {error}"))
            except OSError as error:
                if error.errno not in _DISK_ERRORS:
                    raise
                sys.exit(
                    f"error: {error.filename or workdir}: {error.strerror}. Make room "
                    "there, or make it writable, and start the same command again; checkpoints "
                    "that were written are whole"
                )
    except distributed.PeerError as error:
        sys.exit(f"error: {error}")
    except preemption.Preempted:
        logging.info("ended as asked: the same command goes on from here")
        sys.exit(preemption.EXIT_CODE)
    except Exception:
        traceback.print_exc()
        sys.exit(distributed.CRASH_EXIT_CODE)


def _keep_compiled_programs(workdir: str) -> None:
    """A restart finds in the workdir what was compiled, unless jax was told another place."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        folder = workdir if "://" in workdir else os.path.abspath(workdir)  # noqa: PTH100
        jax.config.update("jax_compilation_cache_dir", f"{folder}/compilation_cache")


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
