# SPDX-License-Identifier: BSD-3-Clause
"""The engine of many machines: Ray, an optional dependency imported when used."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from .dispatch import WorkerDiedError, dispatch
from .engine import Part, Result
from .head_watch import watched

# Parts in flight for each core: those that wait for a core let a cluster that can grow do so.
_PER_CORE = 2
_ONE_CORE = {"num_cpus": 1}
_PATIENCE = 15.0  # seconds without a word while Ray starts: half of it do on an idle machine
_START_SECONDS = 300  # that its processes may need beside other work; Ray's default is 30
_TRIES = 3  # of some 40 seconds to reach a cluster; Ray's default of 20 is a quarter of an hour
_WAITING = (
    f"waiting for Ray: on a busy machine it may take {_START_SECONDS // 60} minutes to start; a "
    "cluster that does not answer is given up after two"
)
_FOLDER = "the folder `ray` in RAY_TMPDIR, TMPDIR or /tmp, the first of these that is set"
_RESUME = "Finished parts are kept: start a cluster again and run the same command to resume"


class ClusterError(ConnectionError):
    """Ray did not start, or its cluster cannot be reached or has ended."""


class NotInstalledError(ImportError):
    """Ray is not installed."""


class RayCluster:
    """Does the parts on the machines of a Ray cluster, each on one core; see `Engine`.

    Args:
        ray: The module, initialized.
        workers: Maximum number of parts in flight; None: as many as the cluster can do.
        resources: What a part takes, as options of a Ray task.
    """

    def __init__(self, ray: ModuleType, workers: int | None, resources: Mapping[str, Any]):
        self._ray = ray
        self._workers = workers
        self._resources = resources
        self.threads = 1

    def map_unordered(
        self, function: Callable[[Part], Result], parts: Iterable[Part]
    ) -> Iterator[tuple[Part, Result]]:
        """Yields every part with its result, as they end."""
        try:
            tasks = _Tasks(self._ray, function, self._workers, self._resources)
            try:
                yield from dispatch(tasks, parts)
            finally:
                tasks.stop()
        except self._ray.exceptions.RayError as error:  # not of a part, but of the cluster
            raise ClusterError(f"the Ray cluster failed: {_text(error)}. {_RESUME}") from error


@contextlib.contextmanager
def open_ray(workers: int | None, *, whole_machines: bool = False) -> Iterator[RayCluster]:
    """Connects to the cluster of RAY_ADDRESS or of this machine, or else starts one for itself.

    Args:
        workers: Maximum number of parts in flight; None: as many as the cluster can do.
        whole_machines: Whether a part takes a machine with its accelerators instead of a core.

    Raises:
        NotInstalledError: Ray is not installed; the message says how to install it.
        ClusterError: There is no cluster at RAY_ADDRESS, or none could be started.
    """
    # Read by Ray when it is imported. It reports to its makers where it runs unless told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", str(_START_SECONDS))
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", str(_TRIES))
    try:
        import ray
    except ImportError as error:
        message = "Ray is not installed: pip install -e '.[ray]' in the clone, on every machine"
        raise NotInstalledError(message) from error
    with _ended_by_sigterm():
        head = _initialize(ray)
        try:
            with watched(head) if head else contextlib.nullcontext():
                resources = _whole_machine(ray.nodes()) if whole_machines else _ONE_CORE
                yield RayCluster(ray, workers, resources)
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Gives SIGTERM the exit code that it has without Ray; Ray's own handler exits with code 15.

    That one stops the parts in flight. Afterwards SIGTERM does again what it did before.
    """
    earlier = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as end:
        sys.exit(128 + signal.SIGTERM if end.code == signal.SIGTERM else end.code)
    finally:
        if earlier is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, earlier)


def _initialize(ray: ModuleType) -> str | None:
    """Connects to a cluster or starts one, and says so if that takes long.

    Returns:
        Address of the cluster's head node; None with Ray's client (ray://).
    """
    notice = threading.Timer(_PATIENCE, print, [_WAITING], {"file": sys.stderr, "flush": True})
    notice.daemon = True
    notice.start()
    try:
        # Logs of workers stay on their machines: Ray would forward those of foreign TPU programs.
        context = ray.init(log_to_driver=False, include_dashboard=False)
    except Exception as error:  # of many classes, for what users can mend
        raise ClusterError(f"{_text(error)}. {_what_to_do(error)}") from error
    finally:
        notice.cancel()
    address: str | None = getattr(context, "address_info", {}).get("gcs_address")
    return address


def _text(error: Exception) -> str:
    return str(error).strip().rstrip(".")


def _what_to_do(error: Exception) -> str:
    """Returns advice after `ray.init` failed."""
    address = os.environ.get("RAY_ADDRESS")
    if address and address != "local":
        return (
            f"RAY_ADDRESS={address}: see that this is the HOST:PORT of a cluster's head node, that "
            "it runs and can be reached from here, with the same versions of Ray and Python"
        )
    if isinstance(error, (ConnectionError, ValueError)):  # an address that `ray start` wrote down
        return (
            "`ray start` was run on this machine. If its cluster has ended, `ray stop` makes "
            "commands forget it; or set RAY_ADDRESS=local to start one for this command"
        )
    if isinstance(error, OSError):
        return (
            f"Ray keeps its files in {_FOLDER}: let it be writable and its path shorter than 40 "
            "characters"
        )
    logs = f"see raylet.out and gcs_server.out of session_latest/logs in {_FOLDER}"
    if "timed out" in str(error):
        return (
            "If the machine is busy, try again later; or start a cluster with `ray start --head`, "
            f"which commands then use. If it is not, {logs}"
        )
    return f"If this does not say what to do, {logs}"


def _whole_machine(nodes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the resources of the smallest machine, of those with accelerators if there are any.

    Args:
        nodes: As `ray.nodes` describes them.
    """
    machines = [one for node in nodes if node["Alive"] and (one := node["Resources"]).get("CPU")]
    with_tpus, with_gpus = ([one for one in machines if one.get(kind)] for kind in ("TPU", "GPU"))
    some = with_tpus or with_gpus or machines
    if not some:  # the cluster may still grow
        return dict(_ONE_CORE)
    least = {name: min(one.get(name, 0) for one in some) for name in ("CPU", "GPU", "TPU")}
    resources: dict[str, Any] = {"num_cpus": least["CPU"]}
    if with_tpus:
        resources["resources"] = {"TPU": least["TPU"]}
    elif with_gpus:
        resources["num_gpus"] = least["GPU"]
    return resources


def _call(function: Callable[[Any], Any], folder: Path, part: Any) -> Any:
    # Ray's workers begin in the folder where somebody started their node; users give paths that are
    # relative to their own. It need not exist everywhere: paths may be absolute, or of buckets.
    with contextlib.suppress(OSError):
        os.chdir(folder)
    return function(part)


class _Tasks:
    """Tasks of Ray, as `dispatch.Workers`."""

    def __init__(
        self,
        ray: ModuleType,
        function: Callable[[Any], Any],
        workers: int | None,
        resources: Mapping[str, Any],
    ):
        self._ray = ray
        self._workers = workers
        self._folder = Path.cwd()
        self._function = ray.put(function)  # copied once to every machine
        # Deaths are counted by `dispatch`. Parts are spread, because they read and write much.
        remote = ray.remote(max_retries=0, scheduling_strategy="SPREAD", **resources)
        self._call = remote(_call)
        self._running: set[Any] = set()
        errors = ray.exceptions
        self._deaths = (
            errors.NodeDiedError, errors.ObjectLostError, errors.OutOfMemoryError,
            errors.WorkerCrashedError,
        )  # fmt: skip

    def capacity(self) -> int:
        cores = int(self._ray.cluster_resources().get("CPU", 0))
        return self._workers or max(1, _PER_CORE * cores)

    def submit(self, part: Any) -> Any:
        task = self._call.remote(self._function, self._folder, part)
        self._running.add(task)
        return task

    def wait(self, tasks: Collection[Any]) -> Collection[Any]:
        return self._ray.wait(list(tasks), num_returns=1)[0]

    def result(self, task: Any) -> Any:
        self._running.discard(task)
        try:
            return self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            # Ray's word for KeyboardInterrupt, which a download raises at SIGTERM.
            if isinstance(error.cause, self._ray.exceptions.TaskCancelledError):
                raise WorkerDiedError("the process was told to end") from error
            raise error.cause from error  # what the function raised, as without Ray
        except self._deaths as error:
            raise WorkerDiedError(str(error).partition("\n")[0]) from error

    def stop(self) -> None:
        """Ends the tasks in flight at once; other users of the cluster are not affected."""
        for task in self._running:
            self._ray.cancel(task, force=True)
