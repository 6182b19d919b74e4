# SPDX-License-Identifier: BSD-3-Clause
"""Exports by processes that know nothing of each other, on a disk and in a bucket."""

import contextlib
import importlib.util
import signal
import threading
import time

import jax
import pytest

from benchmarks.peers.job import inherited_environment
from mlimages_jax.distributed import claims
from mlimages_jax.distributed.claims import ClaimError
from mlimages_jax.distributed.workdir_lock import WorkdirInUseError, held
from mlimages_jax.features.export import export_task
from mlimages_jax.features.export.components import Components
from mlimages_jax.features.export.export_task import export
from mlimages_jax.features.export.feature_writer import FeatureWriter
from mlimages_jax.settings import build
from tests.support import object_storage, task_process
from tests.support.exporting import config_of, files_of, settings_of

ELASTIC = {"elastic": True, "rows_per_part": 4, "outputs": ("features",)}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(claims, "POLL_SECONDS", 0.05)


@pytest.mark.slow
def test_several_at_once_leave_the_bytes_of_one(folder, checkpoint, tmp_path):
    """Here three threads; each begins, all take parts, and one finds and stores the components."""
    values = ELASTIC | {"components": 4}
    export(config_of(checkpoint, folder, **values | {"elastic": False}), tmp_path / "one")
    elastic, failed = config_of(checkpoint, folder, **values), []

    def run():
        try:
            export(elastic, tmp_path / "three")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert files_of(tmp_path / "three") == files_of(tmp_path / "one")
    assert export(elastic, tmp_path / "three")["complete"]


def test_what_others_hold_is_left_to_them_and_taken_when_they_are_gone(
    folder, checkpoint, tmp_path, monkeypatch
):
    config = config_of(checkpoint, folder, **ELASTIC)
    export(config, tmp_path / "whole")
    other = claims.Claims(tmp_path / "w" / "unfinished", task="another")
    theirs = [other.attempt(f"part-{number:05d}") for number in (0, 3)]
    written, write, sleep = [], FeatureWriter.write, time.sleep

    def leave(seconds):
        """Nothing else is left to do: now the other process goes."""
        assert set(written) == set(range(10)) - {0, 3}
        while theirs:
            theirs.pop().release()
        sleep(seconds)

    def note(self, part):
        written.append(part.number)
        write(self, part)

    monkeypatch.setattr(FeatureWriter, "write", note)
    monkeypatch.setattr("mlimages_jax.features.export.elastic.time.sleep", leave)
    export(config, tmp_path / "w")
    assert sorted(written) == list(range(10)) and set(written[-2:]) == {0, 3}
    assert files_of(tmp_path / "w") == files_of(tmp_path / "whole")


def test_who_comes_too_late_finds_it_complete(folder, checkpoint, tmp_path, monkeypatch):
    """Of two that find all parts stored, the second when the first has removed them."""
    config = config_of(checkpoint, folder, **ELASTIC)
    finish = FeatureWriter.finish

    def twice(self, **values):
        with monkeypatch.context() as patched:
            patched.setattr(FeatureWriter, "finish", finish)
            first = FeatureWriter.finish(self, **values)
            assert finish(self, **values) == first
        return first

    monkeypatch.setattr(FeatureWriter, "finish", twice)
    assert export(config, tmp_path / "w")["complete"]
    assert not (tmp_path / "w" / "unfinished").exists()


def test_what_cannot_be_elastic_is_named(folder, checkpoint, tmp_path, monkeypatch):
    config = config_of(checkpoint, folder, **ELASTIC)
    with held(tmp_path, task="export_features"), pytest.raises(WorkdirInUseError):
        _in_thread(lambda: export(config, tmp_path))
    with held(tmp_path, task="export_features", shared=True), pytest.raises(WorkdirInUseError):
        plain = config_of(checkpoint, folder, **ELASTIC | {"elastic": False})
        _in_thread(lambda: export(plain, tmp_path))
    with pytest.raises(ClaimError, match="memory://bucket/w/unfinished: work can be divided"):
        export(config, "memory://bucket/w")
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(export_task, "_load", lambda *_: pytest.fail("too late"))
    with pytest.raises(build.ConfigError, match="2 processes were started as one job"):
        export(config, tmp_path / "w")


def _in_thread(function):
    """Runs it in another thread, as another process: a thread may take its own lock again."""
    failed = []

    def run():
        try:
            function()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    for error in failed:
        raise error


needs_gcsfs = pytest.mark.skipif(
    importlib.util.find_spec("gcsfs") is None, reason="gcsfs is not installed (the extra gcs)"
)


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("place", ["disk", pytest.param("bucket", marks=needs_gcsfs)])
def test_one_is_killed_and_one_joins_late(folder, checkpoint, tmp_path, place):
    """Three processes; of the parts of the killed one none is lost, and none is torn."""
    path = tmp_path / "list.txt"
    path.write_text("".join(f"{name}\n" for name in sorted(folder.glob("noise/*.jpg")) * 160))
    values = ELASTIC | {"rows_per_part": 16, "components": 4}
    export(config_of(checkpoint, path, **values | {"elastic": False}), tmp_path / "one")
    values = settings_of(checkpoint, path, **values)
    (tmp_path / "bucket").mkdir()
    with contextlib.ExitStack() as until_the_end:
        storage = until_the_end.enter_context(object_storage.serve(tmp_path / "bucket"))
        environment = storage.environment() if place == "bucket" else inherited_environment()
        workdir = "gs://bucket/w" if place == "bucket" else str(tmp_path / "bucket" / "w")

        def start():
            (process,) = until_the_end.enter_context(
                task_process.running(
                    "export_features", workdir, values, count=1, environment=environment
                )
            )
            return process

        def written():
            with contextlib.suppress(FileNotFoundError):  # the folder vanishes at the end
                return len(list((tmp_path / "bucket" / "w" / "unfinished").glob("*.jsonl")))
            return 0

        first, second = start(), start()
        while written() < 4:
            assert first.poll() is second.poll() is None, first.communicate()
            time.sleep(0.001)
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert 0 < written() < 300, "it was over before the kill"
        late = start()
        for process in (second, late):
            errors = process.communicate(timeout=600)[1]
            assert process.returncode == 0, errors
    assert files_of(tmp_path / "bucket" / "w") == files_of(tmp_path / "one")
    assert Components.load(tmp_path / "one").images == 4_800
