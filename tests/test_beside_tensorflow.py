# SPDX-License-Identifier: BSD-3-Clause
"""Buckets are read and written in the same way where TensorFlow is installed and where it is not.

`epath` takes TensorFlow for gs:// wherever it finds one. A job of the GitHub workflow runs the
tests of buckets beside the real one.
"""

import importlib.util
import os
import subprocess
import sys

import pytest

from mlimages_jax.files import bucket_backend
from tests.support import object_storage, tensorflow_trap
from tests.support.two_processes import ROOT

needs_gcsfs = pytest.mark.skipif(
    importlib.util.find_spec("gcsfs") is None, reason="gcsfs is not installed (the extra gcs)"
)
WRITES = """
import sys
import mlimages_jax
from etils import epath
from mlimages_jax.files import remote
line = epath.Path("gs://bucket/run/lines.txt")
for text in ("one", "two"):
    remote.append_line(line, text)
print(*line.read_text().split(), *(path.name for path in line.parent.iterdir()))
assert "tensorflow" not in sys.modules
"""
OF_BUCKETS = (
    "tests/data/test_remote_sets.py",
    "tests/distributed/test_workdir_lock.py",
    "tests/evaluation/test_report.py::test_a_bucket_is_written_to_as_a_folder_is",
    "tests/files/test_remote.py",
    "tests/training/test_remote_workdir.py",
)


@needs_gcsfs
@pytest.mark.parametrize("trapped", [False, True])
def test_a_bucket_is_written_without_tensorflow(tmp_path, trapped):
    (tmp_path / "bucket/run").mkdir(parents=True)
    with object_storage.serve(tmp_path / "bucket") as storage:
        environment = storage.environment() | (_trap(tmp_path) if trapped else {})
        done = _run("-c", WRITES, environment=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["one", "two", "lines.txt"]


@needs_gcsfs
def test_epath_left_to_itself_would_take_the_trap(tmp_path):
    """Else the tests here would pass whatever the package chooses."""
    code = "from etils import epath; epath.Path('gs://bucket/run').exists()"
    done = _run("-c", code, environment=dict(os.environ) | _trap(tmp_path))
    assert "AssertionError: TensorFlow was imported" in done.stderr


def test_a_choice_in_the_environment_stays(monkeypatch):
    monkeypatch.setenv("EPATH_USE_TF", "true")
    bucket_backend.choose()
    assert os.environ["EPATH_USE_TF"] == "true"


@pytest.mark.slow
@needs_gcsfs
def test_all_tests_of_buckets_pass_beside_tensorflow(tmp_path):
    arguments = ("-m", "pytest", "-n", "0", "-m", "", *OF_BUCKETS)
    done = _run(*arguments, environment=dict(os.environ) | _trap(tmp_path))
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout


def _trap(folder):
    """Environment in which a TensorFlow is installed that fails when it is imported."""
    return {"PYTHONPATH": f"{ROOT}:{tensorflow_trap.lay(folder)}"}


def _run(*arguments, environment):
    """Runs Python as a user starts it: without the choice that this process made on import."""
    environment.pop("EPATH_USE_TF", None)
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True,
        timeout=550,
    )  # fmt: skip
