# SPDX-License-Identifier: BSD-3-Clause
import json
import sys
import time
from types import SimpleNamespace

import pytest
from absl import logging as absl_logging
from etils import epath
from PIL import Image

from mlimages_jax.monitoring import trackers
from mlimages_jax.monitoring.trackers import IDS, TrackerError, Trackers

SETTINGS = {"seed": 0, "data.folder": "x", "model.stage_sizes": (1, 1)}


class _Recorder:
    """A tracker that keeps what it gets."""

    def __init__(self, project, name, run_id, settings, workdir):
        self.opened = (project, name, run_id, dict(settings), workdir)
        self.run_id = run_id or "new"
        self.got = []

    def write(self, step, values):
        if step == 13:
            raise OSError("the server\nis away")
        self.got.append((step, dict(values)))

    def add_file(self, path):
        self.got.append(path.name)

    def close(self):
        self.got.append("closed")


@pytest.fixture
def opened(monkeypatch):
    found = []

    def open_(*arguments):
        found.append(_Recorder(*arguments))
        return found[-1]

    monkeypatch.setattr(trackers, "TRACKERS", {"one": open_, "two": open_})
    return found


def _trackers(folder, *names):
    return Trackers(names, epath.Path(folder), project="p", settings=SETTINGS)


def test_all_get_the_same_and_a_restart_continues_their_runs(tmp_path, opened):
    (tmp_path / "curves.png").write_bytes(b"x")
    for _ in range(2):
        both = _trackers(tmp_path, "one", "two")
        both.write(1, {"loss": 0.5})
        both.add_files([tmp_path / "curves.png", tmp_path / "missing.png"])
        both.close()
    assert [one.got for one in opened] == 4 * [[(1, {"loss": 0.5}), "curves.png", "closed"]]
    assert [one.opened[2] for one in opened] == [None, None, "new", "new"]
    assert opened[0].opened == ("p", tmp_path.name, None, SETTINGS, str(tmp_path))
    assert json.loads((tmp_path / IDS).read_text()) == {"one": "new", "two": "new"}


def test_one_that_fails_is_left_out_and_ends_nothing(tmp_path, opened, monkeypatch):
    lines = []
    monkeypatch.setattr(absl_logging, "warning", lambda text, *values: lines.append(text % values))
    one = _trackers(tmp_path, "one")
    for step in (12, 13, 14):
        one.write(step, {"loss": 1.0})
    one.close()
    assert opened[0].got == [(12, {"loss": 1.0})]
    assert lines == ["one failed and gets nothing more: the server is away"]


def test_one_that_does_not_start_is_named(tmp_path, monkeypatch):
    def open_(*_):
        raise ValueError("no API key")

    monkeypatch.setattr(trackers, "TRACKERS", {"one": open_})
    with pytest.raises(TrackerError, match=r"one does not start: no API key.*tracking\.names"):
        _trackers(tmp_path, "one")


def test_a_missing_library_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(trackers.TRACKERS, "one", lambda *_: trackers._import("no_such_library"))
    with pytest.raises(TrackerError, match="no_such_library is not installed: pip install"):
        _trackers(tmp_path, "one")


def test_without_names_nothing_is_written(tmp_path):
    _trackers(tmp_path).close()
    assert not list(tmp_path.iterdir())


def test_mlflow_keeps_a_run_over_a_restart(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/per_class.tsv").write_text("id\n")
    for step in (1, 2):
        one = _trackers(tmp_path / "run", "mlflow")
        one.write(step, {"training/loss": 0.5 / step, "val/precision@5": 0.25})
        one.add_files([tmp_path / "run/per_class.tsv"])
        one.close()
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("p").experiment_id])
    assert run.info.run_name == "run" and run.info.status == "FINISHED"
    assert run.data.params["model.stage_sizes"] == "(1, 1)"
    history = client.get_metric_history(run.info.run_id, "training/loss")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.25)]
    assert run.data.metrics["val/precision_at_5"] == 0.25
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["per_class.tsv"]


@pytest.mark.slow
def test_wandb_writes_offline_and_keeps_its_id(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "per_class.tsv").write_text("id\n")
    for step in (1, 2):
        one = _trackers(tmp_path, "wandb")
        one.write(step, {"training/loss": 0.5, "val/precision@5": 0.25})
        one.add_files([tmp_path / "per_class.tsv"])
        one.close()
    run_id = json.loads((tmp_path / IDS).read_text())["wandb"]
    files = list((tmp_path / "wandb").glob(f"offline-run-*-{run_id}/run-{run_id}.wandb"))
    assert files
    for file in files:  # its own process may still be writing on a busy machine
        deadline = time.monotonic() + 30
        while b"val/precision@5" not in file.read_bytes():
            assert time.monotonic() < deadline, file
            time.sleep(0.1)


class _Trackio:
    """Stands for the library: keeps what it is called with."""

    def __init__(self):
        self.calls = []
        self.Image = lambda path: f"image of {path.name}"
        self.Table = lambda *, columns, data: (columns, data)

    def init(self, **arguments):
        self.calls.append(arguments)
        return SimpleNamespace(
            log=lambda values, step: self.calls.append((step, values)),
            log_artifact=lambda path, *, name, **_: self.calls.append(name),
        )

    def finish(self):
        self.calls.append("finished")


def test_trackio_finds_its_run_by_a_name_that_no_other_workdir_has(tmp_path, monkeypatch):
    library = _Trackio()
    monkeypatch.setitem(sys.modules, "trackio", library)
    for folder in ("a/run", "a/run", "b/run"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        _trackers(tmp_path / folder, "trackio").close()
    first, again, other = (call["name"] for call in library.calls if call != "finished")
    assert first == again != other
    assert first.startswith("run-") and other.startswith("run-")
    assert library.calls[0] == {
        "project": "p", "name": first, "resume": "allow", "config": SETTINGS, "embed": False,
    }  # fmt: skip


def test_trackio_shows_images_and_tables_at_the_last_step(tmp_path, monkeypatch):
    library = _Trackio()
    monkeypatch.setitem(sys.modules, "trackio", library)
    folder = tmp_path / "my run"
    folder.mkdir()
    for name, text in {
        "curves.png": "",
        "metrics.json": "{}",
        "classes.tsv": "id\tAP\nx\u2028\t1\n",
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    one = _trackers(folder, "trackio")
    one.write(7, {"loss": 0.5})
    one.add_files([folder / name for name in ("curves.png", "metrics.json", "classes.tsv")])
    _, *calls = library.calls
    artifacts = [call for call in calls if isinstance(call, str)]
    assert [name.replace(one._open["trackio"].run_id[-6:], "ID") for name in artifacts] == [
        "my_run-ID-curves.png", "my_run-ID-metrics.json", "my_run-ID-classes.tsv",
    ]  # fmt: skip
    assert [call for call in calls if isinstance(call, tuple)] == [
        (7, {"loss": 0.5}),
        (7, {"curves": "image of curves.png"}),
        (7, {"classes": (["id", "AP"], [["x\u2028", "1"]])}),
    ]


def test_trackio_keeps_a_run_over_a_restart(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))  # read by the import
    trackio = pytest.importorskip("trackio", reason="wants another Pillow: CONTRIBUTING.md")
    from trackio.sqlite_storage import SQLiteStorage

    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "per_class.tsv").write_text("id\tAP\nn1\t0.5\n")
    Image.new("RGB", (2, 2)).save(folder / "curves.png")
    for step in (1, 2):
        one = _trackers(folder, "trackio")
        one.write(step, {"training/loss": 0.5 / step, "val/precision@5": 0.25})
        one.add_files([folder / "per_class.tsv", folder / "curves.png"])
        one.close()
    (run,) = trackio.Api().runs("p")
    assert run.name == json.loads((folder / IDS).read_text())["trackio"]
    assert run.config["model.stage_sizes"] == [1, 1]
    rows = SQLiteStorage.get_logs("p", run.name)
    losses = [(row["step"], row["training/loss"]) for row in rows if "training/loss" in row]
    assert losses == [(1, 0.5), (2, 0.25)]
    table = next(row["per_class"] for row in rows if "per_class" in row)
    assert table["_value"] == [{"id": "n1", "AP": "0.5"}]
    picture = next(row["curves"] for row in rows if "curves" in row)
    assert (tmp_path / "store/media" / picture["file_path"]).exists()
    names = [one["name"] for one in SQLiteStorage.get_artifacts("p")]
    assert sorted(names) == [f"{run.name}-curves.png", f"{run.name}-per_class.tsv"]
