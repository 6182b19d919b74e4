# SPDX-License-Identifier: BSD-3-Clause
"""The choice of an engine, by name or by the options that all commands share."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Annotated, Literal

from mlimages_jax.command_line import optional

from .engine import Engine
from .local import InProcess, LocalProcesses
from .ray_cluster import open_ray

EngineName = Literal["local", "ray"]


@dataclasses.dataclass(frozen=True)
class EngineOptions:
    """Options of every command that works in parts.

    Attributes:
        engine: local works on this machine; ray on a Ray cluster, the one of RAY_ADDRESS or the one
            that `ray start` started here.
        workers: number of worker processes; default: local works in this process, ray on every core
            of the cluster.
    """

    engine: EngineName = "local"
    workers: Annotated[int | None, optional("INT")] = None

    def words(self) -> tuple[str, ...]:
        """Returns the options of a command line that make this choice."""
        engine = () if self.engine == "local" else (f"--engine={self.engine}",)
        return engine if self.workers is None else (*engine, f"--workers={self.workers}")

    def open(self) -> contextlib.AbstractContextManager[Engine]:
        """Opens the chosen engine, see `open_engine`."""
        return open_engine(self.engine, workers=self.workers)


@contextlib.contextmanager
def open_engine(
    name: EngineName = "local", *, workers: int | None = None, whole_machines: bool = False
) -> Iterator[Engine]:
    """Opens an engine for some maps.

    Args:
        name: `local` or `ray`, see `EngineOptions`.
        workers: Number of worker processes. With `local`, None or 0 does the work in this process,
            which needs nothing. With `ray`, None uses every core of the cluster.
        whole_machines: With `ray`, a part takes a machine with all its cores and accelerators
            instead of a core.

    Raises:
        ValueError: The name or the number is invalid.
        NotInstalledError: Ray is not installed.
        ClusterError: There is no cluster at RAY_ADDRESS, or none could be started.
    """
    if workers is not None and workers < 0:
        raise ValueError(f"workers={workers} is not a number of processes: 0 or more")
    if name == "local":
        yield LocalProcesses(workers) if workers else InProcess()
    elif name == "ray":
        with open_ray(workers, whole_machines=whole_machines) as engine:
            yield engine
    else:
        raise ValueError(f"engine={name!r} is neither local nor ray")
