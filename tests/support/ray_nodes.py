# SPDX-License-Identifier: BSD-3-Clause
"""A Ray cluster of several nodes on this machine, and its workers."""

import contextlib
import os

import psutil
import pytest

# Seconds for a node to start beside other tests; Ray reads it when it is imported.
os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")


@contextlib.contextmanager
def cluster(*, nodes, cores=2):
    """A cluster whose first node does no work, and whose address is in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else Ray writes a token into the home folder
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        patch.setenv("RAY_ADDRESS", cluster.address)
        for _ in range(nodes):
            cluster.add_node(num_cpus=cores)
        try:
            yield cluster
        finally:
            cluster.shutdown()


def one_of_its_own(monkeypatch):
    """Lets a command of this process start a cluster for itself, whatever other tests have started.

    It would join the one that `cluster` started last in any process; and when that one ends, Ray
    ends this process a minute later, without a word.
    """
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else Ray writes a token into the home folder
    monkeypatch.setenv("RAY_ADDRESS", "local")


def busy_workers():
    """The processes of this machine's cluster that are doing a part."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.cmdline()[:1] == ["ray::_call"]:
                found.append(process)
    return found
