# SPDX-License-Identifier: BSD-3-Clause
"""Runs a config's task: `python -m mlimages_jax.main --config=configs/pretrain.py --workdir=W`.

`mlimages train`, `evaluate`, `thresholds`, `tag` and `export` also start here, see
`mlimages_jax.cli.tasks`.
"""

import dataclasses
import functools
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from logging import WARNING, LogRecord
from pathlib import Path
from typing import Annotated, Any

from absl import app, flags, logging

from mlimages_jax import command_line, settings
from mlimages_jax.command_line import optional
from mlimages_jax.distributed import exit_codes, preemption
from mlimages_jax.files import paths
from mlimages_jax.files.escaping import several_lines
from mlimages_jax.settings import config_file

ROOT = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Processes:
    """Options by which processes find each other; jax often detects them itself.

    Attributes:
        coordinator_address: address of process 0, if jax cannot detect it.
        num_processes: number of processes.
        process_id: index of this process, from 0.
        peer_timeout: seconds to wait for the other processes.
        require_platform: exit with 1 if jax finds no such device; default: the first platform in
            JAX_PLATFORMS.
    """

    coordinator_address: Annotated[str | None, optional("HOST:PORT")] = None
    num_processes: Annotated[int | None, optional("INT")] = None
    process_id: Annotated[int | None, optional("INT")] = None
    peer_timeout: float = 300.0
    require_platform: Annotated[str | None, optional("{cpu,gpu,tpu}")] = None


_CONFIG = flags.DEFINE_string(
    "config",
    None,
    "Config file, e.g. configs/pretrain.py:paper; --config.NAME=VALUE changes a setting.",
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints, metrics and logs.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator_address", None, "HOST:PORT of process 0, if jax cannot detect it."
)
_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes.")
_PROCESS = flags.DEFINE_integer("process_id", None, "Index of this process, from 0.")
_PEER_TIMEOUT = flags.DEFINE_float(
    "peer_timeout", 300, "Seconds to wait for the other processes.", lower_bound=1
)
_PLATFORM = flags.DEFINE_enum(
    "require_platform",
    None,
    ["cpu", "gpu", "tpu"],
    "Exit with 1 if jax finds no such device; default: the first platform in JAX_PLATFORMS.",
)


def main(argv: list[str], *, overrides: Sequence[config_file.Override] = ()) -> None:
    """Runs the task of the config, with the settings from the command line."""
    if len(argv) > 1:
        raise app.UsageError(
            f"unexpected arguments {argv[1:]}: values are set by --config.name=value"
        )
    processes = Processes(
        _COORDINATOR.value,
        _PROCESSES.value,
        _PROCESS.value,
        _PEER_TIMEOUT.value,
        _PLATFORM.value,
    )
    start(str(_CONFIG.value), str(_WORKDIR.value), processes, overrides=overrides)


def start(
    config_name: str,
    workdir: str,
    this: Processes,
    *,
    overrides: Sequence[config_file.Override] = (),
) -> None:
    """Runs the task of a config.

    Args:
        config_name: FILE or FILE:VARIANT.
        workdir: Folder of the run, as typed.
        this: How this process finds the others.
        overrides: Settings on the command line.

    Raises:
        SystemExit: After an error, with the code for launchers, see docs/guide/files.md.
    """
    started = time.monotonic()
    # Before anything slow: a signal during the imports must not be lost.
    preemption.watch()
    try:  # before processes connect, folders are created or jax is imported
        workdir = paths.workdir(workdir)
        config = config_file.read_config(config_name, overrides, workdir=workdir)
    except (settings.ConfigError, paths.PathError) as error:
        sys.exit(several_lines(f"error: {error}"))
    # Imported here: jax takes seconds to import, too long for --help or a mistyped flag.
    from mlimages_jax.distributed import processes

    logging.set_verbosity(logging.INFO)
    # On the handler, not the logger: records of other loggers pass through the handler only.
    logging.get_absl_handler().addFilter(_is_for_people)
    try:
        tasks = _tasks(started)
        _keep_compiled_programs(workdir)
        others = processes.initialize(
            this.coordinator_address, this.num_processes, this.process_id, timeout=this.peer_timeout
        )
        with others:
            _run(tasks[config.task], config, workdir, platform=this.require_platform)
    except preemption.Preempted:
        logging.info("stopped on request; run the same command to resume")
        sys.exit(preemption.EXIT_CODE)
    except Exception as error:
        if line := exit_codes.for_a_person(error, workdir=workdir):
            sys.exit(several_lines(line))
        # Not raised: Python would exit with 1, after which launchers do not restart.
        traceback.print_exc()
        sys.exit(exit_codes.CRASH)


def _tasks(started: float) -> dict[str, Callable[..., Any]]:
    """Returns the functions that run tasks, by name of the task."""
    from mlimages_jax.evaluation import evaluate_task, thresholds_task
    from mlimages_jax.features.export import export_task
    from mlimages_jax.inference import tag_task
    from mlimages_jax.training import quickstart, suspects, tagger, train

    return {
        "train": functools.partial(train.train, started=started),
        "quickstart": functools.partial(quickstart.quickstart, started=started),
        "tagger": functools.partial(tagger.tagger, started=started),
        "suspects": suspects.find_suspects,
        "evaluate": evaluate_task.evaluate,
        "thresholds": thresholds_task.find,
        "classify": tag_task.classify,
        "export_features": export_task.export,
    }


def _run(
    task: Callable[..., Any], config: settings.Settings, workdir: str, *, platform: str | None
) -> None:
    """Runs a task once all processes agree on it; user errors make all of them exit with 1."""
    from mlimages_jax.distributed import agreement, devices
    from mlimages_jax.training import out_of_memory

    try:
        agreement.check_processes(settings.flatten(config), workdir=workdir)
        devices.check_platform(platform)
        with out_of_memory.named(config):
            task(config, workdir)
    except preemption.Preempted:
        raise
    except Exception as error:
        # Exits here, inside of `processes.initialize`, which then stops the other processes at
        # once; they would otherwise wait for this one until their time is up.
        if line := exit_codes.for_a_person(error, workdir=workdir):
            sys.exit(several_lines(line))
        raise


def _keep_compiled_programs(workdir: str) -> None:
    """Caches compiled programs in the workdir for restarts, unless jax already has a folder."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]  # set by name
        jax.config.update("jax_compilation_cache_dir", f"{workdir}/compilation_cache")


def _is_for_people(record: LogRecord) -> bool:
    """Accepts our own records and all warnings: the libraries log every array they save."""
    path = Path(record.pathname)
    ours = any(path.is_relative_to(ROOT / name) for name in ("mlimages_jax", "tfds_builders"))
    return ours or record.levelno >= WARNING


def run() -> None:
    """Runs the command line of `python -m mlimages_jax.main`."""
    flags.mark_flags_as_required(["config", "workdir"])
    argv, overrides = config_file.split_overrides(sys.argv)
    command_line.with_errors(lambda: config_file.answer_help(argv, overrides), mistyped_code=1)
    app.run(functools.partial(main, overrides=overrides), argv=argv)


if __name__ == "__main__":
    run()
