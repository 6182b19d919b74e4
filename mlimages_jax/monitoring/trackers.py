# SPDX-License-Identifier: BSD-3-Clause
"""Sends the metrics of a run to experiment trackers: Weights & Biases, MLflow and Trackio.

Each is configured as its own documentation says: WANDB_MODE=offline or WANDB_BASE_URL,
MLFLOW_TRACKING_URI, TRACKIO_DIR. The id of a run is kept in the workdir, so that a restart
continues it.
"""

import importlib
import json
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from absl import logging
from etils import epath

from mlimages_jax.files.remote import write_text

IDS = "trackers.json"  # in the workdir: the run of each tracker
_NOT_IN_NAMES = re.compile(r"[^\w\-./ ]")  # MLflow refuses precision@5
_NOT_IN_ARTIFACTS = re.compile(r"[^A-Za-z0-9._-]")  # of Trackio
_MAX_PARAMETER = 500  # characters of a value, as in MLflow 1; the newer 6,000 help nobody


class TrackerError(Exception):
    """A tracker cannot be used; the message says what to do next."""


class Tracker(Protocol):
    """A run at an experiment tracker."""

    run_id: str

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Sends the values of a step."""

    def add_file(self, path: Path) -> None:
        """Sends a picture or table of the workdir, which replaces an earlier one of that name."""

    def close(self) -> None:
        """Finishes the run."""


class WandB:
    """A run at Weights & Biases.

    Args:
        project: Name of the project.
        name: Name of the run.
        run_id: Id of an earlier start; None for a new run.
        settings: Settings of the run by dotted name.
        workdir: Folder that `wandb` writes to.
    """

    def __init__(
        self, project: str, name: str, run_id: str | None, settings: Mapping[str, Any], workdir: str
    ):
        self._library = _import("wandb")
        self.run_id = run_id or uuid.uuid4().hex[:8]
        self._run = self._library.init(
            project=project, name=name, id=self.run_id, resume="allow", dir=workdir,
            config=dict(settings), settings=self._library.Settings(silent=True),
        )  # fmt: skip
        # An axis of its own: steps since the last checkpoint come again after a restart, and wandb
        # drops values at a step that it has passed.
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Sends the values of a step."""
        self._run.log({"step": step, **values})

    def add_file(self, path: Path) -> None:
        """Sends an image as media, and any file as it is."""
        if path.suffix == ".png":
            self._run.log({path.stem: self._library.Image(str(path))})
        self._run.save(str(path), base_path=str(path.parent), policy="now")

    def close(self) -> None:
        """Finishes the run."""
        self._run.finish()


class MLflow:
    """A run at MLflow; the arguments are those of `WandB`, without the folder."""

    def __init__(
        self, project: str, name: str, run_id: str | None, settings: Mapping[str, Any], workdir: str
    ):
        del workdir  # MLFLOW_TRACKING_URI says where runs are
        library = _import("mlflow")
        self._metric = library.entities.Metric
        self._client = library.MlflowClient()
        if run_id:
            self._client.update_run(run_id, status="RUNNING")
        else:
            found = self._client.get_experiment_by_name(project)
            where = found.experiment_id if found else self._client.create_experiment(project)
            run_id = self._client.create_run(where, run_name=name).info.run_id
            parameters = [
                library.entities.Param(key, str(value)[:_MAX_PARAMETER])
                for key, value in settings.items()
            ]
            for start in range(0, len(parameters), 100):  # at most 100 in a call
                self._client.log_batch(run_id, params=parameters[start : start + 100])
        self.run_id = str(run_id)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Sends the values of a step."""
        now = int(time.time() * 1_000)
        metrics = [
            self._metric(_NOT_IN_NAMES.sub("_at_", name), value, now, step)
            for name, value in values.items()
        ]
        self._client.log_batch(self.run_id, metrics=metrics)

    def add_file(self, path: Path) -> None:
        """Stores a file as an artifact of the run."""
        self._client.log_artifact(self.run_id, str(path))

    def close(self) -> None:
        """Finishes the run."""
        self._client.set_terminated(self.run_id)


class Trackio:
    """A run at Trackio; the arguments are those of `WandB`, without the folder.

    Trackio finds a run by its name alone, and other workdirs of this name may be in the project:
    the name of the run, which is its id here, ends with random digits.
    """

    def __init__(
        self, project: str, name: str, run_id: str | None, settings: Mapping[str, Any], workdir: str
    ):
        del workdir  # TRACKIO_DIR says where runs are
        self._library = _import("trackio")
        self.run_id = run_id or f"{name}-{uuid.uuid4().hex[:6]}"
        self._run = self._library.init(
            project=project, name=self.run_id, resume="allow", config=dict(settings), embed=False
        )
        self._step: int | None = None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Sends the values of a step."""
        self._step = step
        self._run.log(dict(values), step=step)

    def add_file(self, path: Path) -> None:
        """Shows an image or a table at the last step, and stores any file as an artifact."""
        if path.suffix == ".png":
            self._run.log({path.stem: self._library.Image(path)}, step=self._step)
        if path.suffix == ".tsv":
            # Not splitlines, which also splits at marks that names may contain.
            lines = path.read_text("utf-8").rstrip("\n").split("\n")
            columns, *rows = (line.split("\t") for line in lines)
            table = self._library.Table(columns=columns, data=rows)
            self._run.log({path.stem: table}, step=self._step)
        name = _NOT_IN_ARTIFACTS.sub("_", f"{self.run_id}-{path.name}")
        self._run.log_artifact(path, name=name, type="evaluation", overwrite=True)

    def close(self) -> None:
        """Finishes the run."""
        self._library.finish()  # not the run's own, after which an exit finishes it again


TRACKERS: dict[str, Callable[[str, str, str | None, Mapping[str, Any], str], Tracker]] = {
    "wandb": WandB,
    "mlflow": MLflow,
    "trackio": Trackio,
}


class Trackers:
    """All trackers of a run, on the process that writes; one that fails is left out from then on.

    Args:
        names: Keys of TRACKERS.
        workdir: Folder of the run.
        project: Project, or experiment.
        settings: Settings of the run by dotted name.

    Raises:
        TrackerError: A library is not installed, or a tracker does not start.
    """

    def __init__(
        self,
        names: Sequence[str],
        workdir: epath.Path,
        *,
        project: str,
        settings: Mapping[str, Any],
    ):
        file = workdir / IDS
        ids = json.loads(file.read_text()) if names and file.exists() else {}
        self._open: dict[str, Tracker] = {}
        for name in names:
            try:
                tracker = TRACKERS[name](
                    project, workdir.name, ids.get(name), settings, str(workdir)
                )
            except TrackerError:
                raise
            except Exception as error:  # of any kind: these are libraries with servers behind
                raise TrackerError(
                    f"{name} does not start: {_line(error)}: see its documentation, or leave it "
                    "out of --config.tracking.names"
                ) from error
            self._open[name] = tracker
            ids[name] = tracker.run_id
        if names:
            write_text(file, json.dumps(ids))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Sends the values of a step."""
        self._each(lambda tracker: tracker.write(step, values))

    def add_files(self, paths: Sequence[epath.Path]) -> None:
        """Sends those files that exist, of a workdir on this machine."""
        for path in map(Path, paths):
            if path.exists():
                self._each(lambda tracker, path=path: tracker.add_file(path))  # type: ignore[misc]  # no type for path=path

    def close(self) -> None:
        """Finishes the runs."""
        self._each(lambda tracker: tracker.close())

    def _each(self, action: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                action(tracker)
            except Exception as error:
                # A training does not end because a server of somebody else is away.
                logging.warning("%s failed and gets nothing more: %s", name, _line(error))
                del self._open[name]


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise TrackerError(
            f"{name} is not installed: pip install 'mlimages-jax[{name}]'"
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
