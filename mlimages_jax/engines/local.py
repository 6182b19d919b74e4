# SPDX-License-Identifier: BSD-3-Clause
"""Engines of one machine: this process, or several that it starts."""

import dataclasses
import multiprocessing
import multiprocessing.process
import os
import pickle
import signal
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Any

from .dispatch import WorkerDiedError, dispatch
from .engine import Part, Result

_GRACE = 5.0  # seconds until a worker that does not end, because it is stopped, is killed
# Forked processes would inherit the locks of this process' threads.
_SPAWN = multiprocessing.get_context("spawn")


class InProcess:
    """Does the parts here, one after the other; see `Engine`."""

    def __init__(self) -> None:
        self.threads = os.cpu_count() or 1

    def map_unordered(
        self, function: Callable[[Part], Result], parts: Iterable[Part]
    ) -> Iterator[tuple[Part, Result]]:
        """Yields every part with its result, in order."""
        return dispatch(_Here(function), parts)


class LocalProcesses:
    """Does the parts in processes of this machine; see `Engine`.

    Args:
        workers: Number of processes.
    """

    def __init__(self, workers: int):
        self._workers = workers
        self.threads = max(1, (os.cpu_count() or 1) // workers)

    def map_unordered(
        self, function: Callable[[Part], Result], parts: Iterable[Part]
    ) -> Iterator[tuple[Part, Result]]:
        """Yields every part with its result, as they end."""
        workers = _Processes(function, self._workers)
        try:
            yield from dispatch(workers, parts)
        finally:
            workers.stop()


@dataclasses.dataclass(eq=False)  # hashed by identity: parts may hold arrays
class _Task:
    part: Any


class _Here:
    """Calls the function in this process when its result is asked for."""

    def __init__(self, function: Callable[[Any], Any]):
        self._function = function

    def capacity(self) -> int:
        return 1

    def submit(self, part: Any) -> _Task:
        return _Task(part)

    def wait(self, tasks: Collection[_Task]) -> list[_Task]:
        return list(tasks)

    def result(self, task: _Task) -> Any:
        return self._function(task.part)


class _Processes:
    """One pool of one process for each worker.

    A pool is useless once one of its processes has died, and does not say which task that process
    was doing. With one process a pool, the death costs one task, and it is known which.
    """

    def __init__(self, function: Callable[[Any], Any], workers: int):
        self._function = function
        self._workers = workers
        # Nothing is sent: workers end when our end is closed, also by the death of this process.
        self._watched, self._ours = _SPAWN.Pipe(duplex=False)
        self._idle: list[futures.ProcessPoolExecutor] = []
        self._busy: dict[futures.Future[Any], futures.ProcessPoolExecutor] = {}
        self._started: list[multiprocessing.process.BaseProcess] = []

    def capacity(self) -> int:
        return self._workers

    def submit(self, part: Any) -> futures.Future[Any]:
        while self._idle:
            pool = self._idle.pop()
            try:
                return self._submit(pool, part)
            except BrokenProcessPool:  # died since its last task
                pool.shutdown()
        pool = futures.ProcessPoolExecutor(
            1, _SPAWN, initializer=_start, initargs=(self._watched, self._function)
        )
        # A pool has no public list of its processes.
        others = {*multiprocessing.active_children()}.difference(self._alive())
        task = self._submit(pool, part)
        self._started = [one for one in multiprocessing.active_children() if one not in others]
        return task

    def _alive(self) -> list[multiprocessing.process.BaseProcess]:
        """Returns those started here that have not ended."""
        return [one for one in multiprocessing.active_children() if one in self._started]

    def _submit(self, pool: futures.ProcessPoolExecutor, part: Any) -> futures.Future[Any]:
        # Ctrl-C reaches all processes of a terminal; workers, which inherit the mask, are stopped
        # by this one only, without a traceback of each.
        earlier = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            task = pool.submit(_call, part)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, earlier)
        self._busy[task] = pool
        return task

    def wait(self, tasks: Collection[futures.Future[Any]]) -> Collection[futures.Future[Any]]:
        return futures.wait(tasks, return_when=futures.FIRST_COMPLETED).done

    def result(self, task: futures.Future[Any]) -> Any:
        pool = self._busy.pop(task)
        error = task.exception()
        if isinstance(error, BrokenProcessPool):
            pool.shutdown()
            raise WorkerDiedError("the process was killed or crashed") from error
        self._idle.append(pool)
        if isinstance(error, KeyboardInterrupt):  # the worker got SIGTERM while it downloaded
            raise WorkerDiedError("the process was told to end") from error
        return task.result()

    def stop(self) -> None:
        """Ends all workers at once, whatever they are doing."""
        self._ours.close()
        # What cannot end by itself, as after SIGSTOP or in a debugger, is killed.
        killer = threading.Timer(_GRACE, self._kill)
        killer.start()
        for pool in [*self._idle, *self._busy.values()]:
            pool.shutdown(cancel_futures=True)
        killer.cancel()
        self._watched.close()

    def _kill(self) -> None:
        for worker in self._alive():
            worker.kill()


_function: Callable[[Any], Any]  # of a worker process, set when it starts


def _start(watched: Connection, function: Callable[[Any], Any]) -> None:
    global _function
    _function = function
    threading.Thread(target=_end_with_driver, args=(watched,), daemon=True).start()


def _end_with_driver(watched: Connection) -> None:
    watched.poll(None)  # until the other end is closed
    os._exit(1)


def _call(part: Any) -> Any:
    try:
        return _function(part)
    except Exception as error:
        if _arrives(error):
            raise
        raise RuntimeError(f"{type(error).__name__}: {error}") from error


def _arrives(error: Exception) -> bool:
    """Returns whether an error can be sent to the process that started this one.

    There a pool breaks on one that cannot be unpickled, as after the death of its process: most
    exceptions with arguments of their own are like that.
    """
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return False
    return True
