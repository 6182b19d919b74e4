# SPDX-License-Identifier: BSD-3-Clause
"""A training whose workdir is in a bucket, in an imitation of one on this machine."""

import importlib.util
import json
import signal
import subprocess
import sys

import pytest

from mlimages_jax.training import train
from tests.support import object_storage
from tests.support.many_processes import Job, training
from tests.support.small_run import ROOT, small_config

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gcsfs") is None, reason="gcsfs is not installed (the extra gcs)"
)
W = "gs://bucket/run"


@pytest.fixture
def storage(tmp_path, monkeypatch):
    (tmp_path / "bucket").mkdir()
    with object_storage.serve(tmp_path / "bucket") as storage:
        for name, value in storage.environment().items():
            monkeypatch.setenv(name, value)  # for `Job`
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        yield storage


@pytest.mark.slow
def test_a_workdir_in_a_bucket_is_as_one_on_a_disk(drawn, storage, tmp_path):
    settings = {"log_every": 1, "checkpoint.every": 20}
    longer = training(W, drawn, total_steps=200, **settings)
    with Job(tmp_path / "logs", longer, devices=8) as job:
        job.until("step 10/200")
        job.send(0, signal.SIGTERM)
        assert job.wait() == [75], job.output()
    settings["total_steps"] = 40
    with Job(tmp_path / "logs", training(W, drawn, **settings), devices=8) as job:
        assert job.wait() == [0], job.output()
        assert f"resuming from {W}/checkpoints/" in job.output()
    train.train(small_config(drawn, **settings), tmp_path / "disk")
    ours, theirs = storage.folder / "run", tmp_path / "disk"
    assert _metrics(ours) == _metrics(theirs)
    assert _names(ours) - {"compilation_cache"} == _names(theirs)
    runs = {json.loads(line)["start"] for line in (ours / "goodput.jsonl").read_text().splitlines()}
    assert len(runs) == 2
    assert len(list((ours / "events").iterdir())) == 2
    code = f"import mlimages_jax as m; model = m.load({W!r}); print(len(model.hierarchy))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=storage.environment(), capture_output=True,
        text=True,
    )  # fmt: skip
    assert loaded.stdout.strip() == "40", loaded.stderr


def _metrics(folder):
    """The lines of metrics.jsonl without what the clock says."""
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    clock = ("images_per_second", "input_wait")
    return [{k: v for k, v in row.items() if not k.endswith(clock)} for row in rows]


def _names(folder):
    return {path.name for path in folder.iterdir()}


LISTED = """
import sys
from pathlib import Path
from mlimages_jax.files import remote
from etils import epath
folder, behind = epath.Path("gs://bucket/a"), Path(sys.argv[1], "a")
for text in ("one", "longer"):
    (behind / text).parent.mkdir(exist_ok=True)
    (behind / text).write_text("x")
    (behind / "same").write_text(text)
    print(len(list(folder.iterdir())), (folder / "same").read_text())
"""


def test_what_others_write_is_seen(storage):
    done = subprocess.run(
        [sys.executable, "-c", LISTED, storage.folder], cwd=ROOT, env=storage.environment(),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["2 one", "3 longer"], done.stderr


DAMAGED = """
import sys
from pathlib import Path
from mlimages_jax.checkpoints import manager
from mlimages_jax.training import start
from tests.support import damage
from tests.checkpoints.test_damaged_checkpoints import CONFIG, ABSTRACT, _state

folder, behind = "gs://bucket/run/checkpoints", Path(sys.argv[1], "run/checkpoints")
with manager.Checkpoints(folder) as saved:
    for step in (1, 2, 3):
        saved.save(_state(step), step=step, config=CONFIG)
damage.zero(damage.largest(behind / "3"))
(behind / "2/state/_METADATA").unlink()
with manager.Checkpoints(folder) as saved:
    state = start.restored(saved, CONFIG, ABSTRACT)
print(int(state.step), sorted(path.name for path in saved.directory.iterdir()))
"""


@pytest.mark.slow
def test_damaged_checkpoints_in_a_bucket_are_set_aside(storage):
    done = subprocess.run(
        [sys.executable, "-c", DAMAGED, storage.folder], cwd=ROOT, env=storage.environment(),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["1 ['1', '2.damaged', '3.damaged']"], done.stderr[-3000:]
