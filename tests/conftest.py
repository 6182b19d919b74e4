# SPDX-License-Identifier: BSD-3-Clause
"""Eight virtual CPU devices, and the folders of real data and golden numbers where they exist."""

import atexit
import faulthandler
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key

# The same examples in every run, however long they take on a busy machine: a change fails by what
# it does, not by chance.
# The slow tests draw thousands.
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, database=None, deadline=None, max_examples=50
)
hypothesis.settings.load_profile("repeatable")

# Programs are compiled once a test run, also for the processes that tests start.
if "PYTEST_XDIST_WORKER" not in os.environ:
    CACHE = tempfile.mkdtemp(prefix="mlimages_jax_programs_")
    atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE
# Optimizations make our small programs no faster and took most of the time to compile: those of
# LLVM, and the fusions that XLA writes in MLIR. The slow tests in CI compile with them.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
FLAGS = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
# 0.12 has no other way to compile fusions, and ends the process at a flag that it does not know.
has_emitters_only = tuple(map(int, version("jaxlib").split(".")[:2])) >= (0, 12)
QUICK_FLAGS = FLAGS if has_emitters_only else f"{FLAGS} --xla_cpu_use_fusion_emitters=false"
quick = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] != "0"
os.environ["XLA_FLAGS"] = QUICK_FLAGS if quick else FLAGS
# Also the many programs of a single operation, for the other workers and processes.
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"  # nobody reads where an operation was written

ENOUGH_MEMORY = 800_000_000  # bytes of a worker, after which it forgets what it has compiled
SHARED = Path(__file__).resolve().parents[2] / "shared"


def _folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: the numbers of the original are not part of the project")
    return folder


class _FailuresAtOnce:
    """Names a test when it fails: a run that is ended from outside prints no summary."""

    def __init__(self, terminal: pytest.TerminalReporter):
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            reason = report.longreprtext.rstrip().rpartition("\n")[2]
            self._terminal.write_line(f"\n{report.nodeid} failed: {reason}")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if terminal := config.pluginmanager.get_plugin("terminalreporter"):
        config.pluginmanager.register(_FailuresAtOnce(terminal))


@pytest.fixture(scope="module")
def children_compile_quickly() -> Iterator[None]:
    """In tests whose subject is processes, not what a compiler makes of a network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        patch.setenv("XLA_FLAGS", QUICK_FLAGS)
        yield


@pytest.fixture(scope="module", autouse=True)
def crashes_are_told(pytestconfig: pytest.Config) -> None:
    """Sets Python's signal handlers again: Ray replaces them by its own and then by none."""
    if (stderr := pytestconfig.stash.get(fault_handler_stderr_fd_key, None)) is not None:
        faulthandler.enable(stderr)


@pytest.fixture(scope="module", autouse=True)
def programs_do_not_pile_up() -> Iterator[None]:
    """Forgets compiled programs when they have grown large; most come back from the disk cache."""
    yield
    if "jax" in sys.modules and psutil.Process().memory_info().rss > ENOUGH_MEMORY:
        from tests.support import shared_programs

        shared_programs.forget()
        sys.modules["jax"].clear_caches()


@pytest.fixture(scope="module")
def no_figures() -> Iterator[None]:
    """Figures become files of one pixel: drawing takes longer than most of what is tested."""
    from matplotlib.figure import Figure
    from PIL import Image

    from mlimages_jax.monitoring import curves

    def save(figure: Figure, file: Any, **_: Any) -> None:
        Image.new("L", (1, 1)).save(file, "png")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save)
        patch.setattr(curves, "write_curves", lambda workdir: None)
        yield


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Numbers of the original code."""
    return _folder("golden")


@pytest.fixture(scope="session")
def stamps_dir() -> Path:
    """822 + 196 small real images in the sets' own list format."""
    return _folder("data/stamps")


@pytest.fixture(scope="session")
def tencent_dir() -> Path:
    """The published example files: class list, lists, four photographs, two tfrecords."""
    return _folder("data/tencent")


@pytest.fixture
def local_hub(tmp_path, monkeypatch):
    """A Hub on this machine in place of huggingface.co, and an empty cache; nobody is logged in."""
    constants = pytest.importorskip("huggingface_hub.constants")
    from tests.support import hub_server

    with hub_server.running() as (hub, address):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # plain HTTP
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub
