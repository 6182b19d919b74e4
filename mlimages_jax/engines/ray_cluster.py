# SPDX-License-Identifier: BSD-3-Clause
"""The engine of many machines: Ray, an optional dependency imported when used."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from .dispatch import WorkerDiedError, dispatch
from .engine import Part, Result

# Parts in flight for each core: those that wait for a core let a cluster that can grow do so.
_PER_CORE = 2
_ONE_CORE = {"num_cpus": 1}
_PATIENCE = 15.0  # seconds without a word while Ray starts: half of it do on an idle machine
_START_SECONDS = 300  # that its processes may need beside other work; Ray's default is 30
_STARTING = (
    f"waiting for Ray to start; on a busy machine this may take {_START_SECONDS // 60} minutes"
)


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
        tasks = _Tasks(self._ray, function, self._workers, self._resources)
        try:
            yield from dispatch(tasks, parts)
        finally:
            tasks.stop()


@contextlib.contextmanager
def open_ray(workers: int | None, *, whole_machines: bool = False) -> Iterator[RayCluster]:
    """Connects to the cluster of RAY_ADDRESS or of this machine, or else starts one for itself.

    Args:
        workers: Maximum number of parts in flight; None: as many as the cluster can do.
        whole_machines: Whether a part takes a machine with its accelerators instead of a core.

    Raises:
        ImportError: Ray is not installed; the message says how to install it.
        ConnectionError: There is no cluster at RAY_ADDRESS.
    """
    # Read by Ray when it is imported. It reports to its makers where it runs unless told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", str(_START_SECONDS))
    try:
        import ray
    except ImportError as error:
        message = "Ray is not installed: pip install -e '.[ray]' in the clone, on every machine"
        raise ImportError(message) from error
    _initialize(ray)
    try:
        yield RayCluster(ray, workers, _whole_machine(ray.nodes()) if whole_machines else _ONE_CORE)
    finally:
        ray.shutdown()


def _initialize(ray: ModuleType) -> None:
    """Connects to a cluster or starts one, and says so if that takes long."""
    notice = threading.Timer(_PATIENCE, print, [_STARTING], {"file": sys.stderr, "flush": True})
    notice.daemon = True
    notice.start()
    try:
        # Logs of workers stay on their machines: Ray would forward those of foreign TPU programs.
        ray.init(log_to_driver=False, include_dashboard=False)
    except ConnectionError:  # there is no cluster at RAY_ADDRESS
        raise
    except Exception as error:  # of this class, when a process of Ray's did not start in time
        if "timed out" not in str(error):
            raise
        raise ConnectionError(
            f"Ray did not start on this machine ({error}). If the machine is busy, try again "
            "later; or start a cluster with `ray start --head`, which commands then use. If it is "
            "not, see what /tmp/ray/session_latest/logs/raylet.out says"
        ) from error
    finally:
        notice.cancel()


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
