# SPDX-License-Identifier: BSD-3-Clause
"""How every class of error ends the program: alone, and by real commands."""

import errno
import importlib
import inspect
import pkgutil
import subprocess
import sys

import jax
import pytest

import mlimages_jax
from benchmarks.peers.job import inherited_environment
from mlimages_jax.cli import front
from mlimages_jax.distributed import exit_codes, preemption, processes
from tests.support.small_run import ROOT, flags
from tfds_builders import shapes

JaxError = jax.errors.JaxRuntimeError
PERSON = [
    FileNotFoundError("no data set"),
    FileNotFoundError(errno.ENOENT, "No such file or directory", "x"),
    PermissionError(errno.EACCES, "Permission denied", "x"),
    PermissionError(errno.EPERM, "Operation not permitted", "x"),
    NotADirectoryError(errno.ENOTDIR, "Not a directory", "x"),
    IsADirectoryError(errno.EISDIR, "Is a directory", "x"),
    FileExistsError(errno.EEXIST, "File exists", "x"),
    OSError(errno.ENOSPC, "No space left on device", "x"),
    OSError(errno.EROFS, "Read-only file system", "x"),
    OSError(errno.EDQUOT, "Disk quota exceeded", "x"),
    OSError(errno.EMFILE, "Too many open files", "x"),
    OSError("Forbidden: https://storage/b/bucket\nno access"),
    BrokenPipeError(errno.EPIPE, "Broken pipe"),
    ImportError("No module named 'gcsfs'"),
    ModuleNotFoundError("No module named 'gcsfs'"),
    AttributeError("'total_steps'"),
    KeyError("loss"),
    TypeError("unsupported operand"),
    ValueError("array is damaged"),
    ZeroDivisionError("division by zero"),
    NotImplementedError("not there"),
    AssertionError(),
    MemoryError(),
    JaxError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes"),
    JaxError("INVALID_ARGUMENT: shapes"),
]
RESTART = [
    OSError(errno.EIO, "Input/output error", "x"),
    OSError(errno.ESTALE, "Stale file handle", "x"),
    ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    TimeoutError("timed out"),
    RuntimeError("the disk has gone"),
    JaxError("INTERNAL: CUDA error"),
    JaxError("UNAVAILABLE: socket closed"),
    ValueError("UNAVAILABLE: Error writing gs://bucket/x"),
]


@pytest.mark.parametrize("error", PERSON, ids=repr)
def test_what_comes_back_at_every_start_is_for_a_person(error):
    line = exit_codes.for_a_person(error, workdir="W")
    assert line
    assert line.startswith("error: ")


@pytest.mark.parametrize("error", RESTART, ids=repr)
def test_what_a_machine_or_a_network_causes_is_left_to_a_restart(error):
    assert exit_codes.for_a_person(error, workdir="W") is None


def _our_errors():
    """All error classes of the package; what needs an extra is left out."""
    for module in pkgutil.walk_packages(mlimages_jax.__path__, "mlimages_jax."):
        if not module.name.endswith(("__main__", ".main", "torch_resnet")):
            for _, kind in inspect.getmembers(importlib.import_module(module.name)):
                ours = inspect.isclass(kind) and kind.__module__ == module.name
                if ours and issubclass(kind, Exception) and kind is not preemption.Preempted:
                    yield kind


def test_a_folder_in_the_place_of_a_file_is_said(tmp_path):
    for command in (
        ["data", "labels", tmp_path, "--output", "x"],
        ["data", "stats", tmp_path, "--dictionary", tmp_path],
    ):
        with pytest.raises(SystemExit) as end:
            front.main(list(map(str, command)))
        assert end.value.code == f"error: {tmp_path}: this is a folder; give a file"


def test_every_error_of_ours_is_for_a_person():
    kinds = set(_our_errors())
    assert len(kinds) > 15
    for kind in kinds:
        assert exit_codes.is_ours(kind.__new__(kind, "said what to do")), kind


def test_the_documented_codes():
    codes = (preemption.EXIT_CODE, exit_codes.CRASH, processes.LOST_EXIT_CODE)
    assert codes == (75, 70, 76)
    table = (ROOT / "docs/guide/files.md").read_text()
    assert all(f"| {code} |" in table for code in (1, *codes))


RAISES = """
import errno, sys
from mlimages_jax.training import run as training_run
def broken(*args, **kwargs):
    raise {error}
training_run.open_data = broken
from mlimages_jax.main import run
run()
"""


def _ended(tmp_path, *arguments, code="from mlimages_jax.main import run\nrun()", **environment):
    command = [sys.executable, "-c", code, "--config=configs/quickstart.py", *arguments]
    return subprocess.run(
        [*command, f"--workdir={tmp_path / 'w'}"], cwd=ROOT, capture_output=True, text=True,
        timeout=300, env=inherited_environment() | environment,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        ("ImportError('pyarrow is missing')", 1, "error: pyarrow is missing"),
        ("PermissionError(13, 'Permission denied', '/x')", 1, "error: /x: Permission denied"),
        ("KeyError('loss')", 1, "KeyError: 'loss'"),
        ("RuntimeError('who knows')", 70, "RuntimeError: who knows"),
        ("OSError(errno.EIO, 'Input/output error', '/x')", 70, "Input/output error"),
    ],
)
def test_a_command_ends_with_the_code_of_its_error(tmp_path, error, code, said):
    done = _ended(tmp_path, *flags(tmp_path), code=RAISES.format(error=error))
    assert done.returncode == code, done.stderr
    assert said in done.stderr


@pytest.mark.slow
def test_an_accelerator_that_is_asked_for_and_not_there_is_no_reason_to_use_the_cpu(tmp_path):
    drawn = shapes.build(tmp_path / "data", num_train=16, num_val=8, size=32)
    for arguments, platforms in ([], "cuda,cpu"), (["--require_platform=gpu"], "cpu"):
        done = _ended(tmp_path, *flags(drawn), *arguments, JAX_PLATFORMS=platforms)
        assert done.returncode == 1, done.stderr
        assert "a gpu was requested" in done.stderr
        assert "devices: " in done.stderr.splitlines()[0]  # said first
    assert not (tmp_path / "w" / "metrics.jsonl").exists()
