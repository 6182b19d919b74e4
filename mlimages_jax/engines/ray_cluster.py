# SPDX-License-Identifier: BSD-3-Clause
"""The engine of many machines: Ray, an optional dependency imported when used."""

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from types import ModuleType
from typing import Any

from .dispatch import WorkerDiedError, dispatch
from .engine import Part, Result

# Parts in flight for each core: those that wait for a core let a cluster that can grow do so.
_PER_CORE = 2


class RayCluster:
    """Does the parts on the machines of a Ray cluster, each on one core; see `Engine`.

    Args:
        ray: The module, initialized.
        workers: Maximum number of parts in flight; None: as many as the cluster can do.
    """

    def __init__(self, ray: ModuleType, workers: int | None):
        self._ray = ray
        self._workers = workers
        self.threads = 1

    def map_unordered(
        self, function: Callable[[Part], Result], parts: Iterable[Part]
    ) -> Iterator[tuple[Part, Result]]:
        """Yields every part with its result, as they end."""
        tasks = _Tasks(self._ray, function, self._workers)
        try:
            yield from dispatch(tasks, parts)
        finally:
            tasks.stop()


@contextlib.contextmanager
def open_ray(workers: int | None) -> Iterator[RayCluster]:
    """Connects to the cluster of RAY_ADDRESS or of this machine, or else starts one for itself.

    Args:
        workers: Maximum number of parts in flight; None: as many as the cluster can do.

    Raises:
        ImportError: Ray is not installed; the message says how to install it.
        ConnectionError: There is no cluster at RAY_ADDRESS.
    """
    # Ray reports to its makers where it runs unless told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        message = "Ray is not installed: pip install -e '.[ray]' in the clone, on every machine"
        raise ImportError(message) from error
    # Logs of workers stay on their machines: Ray would forward those of foreign TPU programs too.
    ray.init(log_to_driver=False, include_dashboard=False)
    try:
        yield RayCluster(ray, workers)
    finally:
        ray.shutdown()


def _call(function: Callable[[Any], Any], part: Any) -> Any:
    return function(part)


class _Tasks:
    """Tasks of Ray, as `dispatch.Workers`."""

    def __init__(self, ray: ModuleType, function: Callable[[Any], Any], workers: int | None):
        self._ray = ray
        self._workers = workers
        self._function = ray.put(function)  # copied once to every machine
        # Deaths are counted by `dispatch`. Parts are spread, because they read and write much.
        self._call = ray.remote(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")(_call)
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
        task = self._call.remote(self._function, part)
        self._running.add(task)
        return task

    def wait(self, tasks: Collection[Any]) -> Collection[Any]:
        return self._ray.wait(list(tasks), num_returns=1)[0]

    def result(self, task: Any) -> Any:
        self._running.discard(task)
        try:
            return self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error  # what the function raised, as without Ray
        except self._deaths as error:
            raise WorkerDiedError(str(error).partition("\n")[0]) from error

    def stop(self) -> None:
        """Ends the tasks in flight at once; other users of the cluster are not affected."""
        for task in self._running:
            self._ray.cancel(task, force=True)
