# SPDX-License-Identifier: BSD-3-Clause
"""A download by a Ray cluster of several machines, which only a network joins; one is cut off."""

import contextlib
import itertools
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlimages_jax.image_shards.outcome import OK
from tests.prepare.test_download import ROOT
from tests.prepare.test_download_shards import bytes_of, effective
from tests.support import network, object_storage

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = pytest.mark.slow

RAY = Path(sys.executable).with_name("ray")
WORKERS = ("one", "two")
BUCKET = """
import sys
from pathlib import Path
from tests.support import object_storage
with object_storage.serve(Path(sys.argv[1]), host=sys.argv[2], port=9000):
    print("there", flush=True)
    sys.stdin.read()
"""
JOINED = f"""
import ray, time
ray.init(log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) < {1 + len(WORKERS)}:
    time.sleep(0.1)
"""
LOG = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1] + '/-/log').read().decode())"
HOSTS, IMAGES = 30, 12


@pytest.fixture
def machines():
    if reason := network.why_not():
        pytest.skip(reason)
    with network.network("web", "head", *WORKERS) as made, contextlib.ExitStack() as stack:
        started = []

        def start(name, command, **options):
            process = made.start(name, command, **options)
            started.append(process)
            stack.callback(process.kill)
            return process

        made.begin = start
        yield made
        for process in started:
            process.kill()
            process.wait()


def requests(machines):
    """All requests that the image server has got."""
    url = f"http://{machines.addresses['web']}:8000"
    return json.loads(machines.output("web", [sys.executable, "-c", LOG, url]))


def start_servers(machines, folder):
    address = machines.addresses["web"]
    images = ["-m", "peers.image_host", "--host", address, "--port=8000", "--bases=2",
              "--width=96", "--height=64"]  # fmt: skip
    for command, cwd in (
        (images, ROOT / "benchmarks"),
        (["-c", BUCKET, str(folder), address], ROOT),
    ):
        server = machines.begin("web", [sys.executable, *command], cwd=cwd,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        assert server.stdout.readline()  # it listens


def start_cluster(machines, environment, command):
    """Starts nodes on all machines, and on the first one a command once they are there."""
    head = f"{machines.addresses['head']}:6379"
    small = "--object-store-memory=80000000 --disable-usage-stats"
    for name in WORKERS:
        words = f"{RAY} start --address={head} --num-cpus=2 {small} --block"
        join = f"until {words} --node-ip-address={machines.addresses[name]}; do sleep 1; done"
        machines.begin(name, ["sh", "-c", join], environment=environment)
    first = (
        f"{RAY} start --head --port=6379 --node-ip-address={machines.addresses['head']} "
        f"--num-cpus=0 --include-dashboard=false {small} && export RAY_ADDRESS={head} && "
        f"{sys.executable} -c {shlex.quote(JOINED)} && {shlex.join(command)}"
    )
    return machines.begin("head", ["sh", "-c", first], environment=environment,
                          stderr=subprocess.PIPE, text=True)  # fmt: skip


def test_a_machine_that_disappears_loses_nothing_and_no_host_is_asked_by_two(machines, tmp_path):
    urls = tmp_path / "urls.txt"
    names = [f"http://h{i % HOSTS}.test/after/250/{i}.jpg" for i in range(HOSTS * IMAGES)]
    urls.write_text("".join(f"{name}\n" for name in names))
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    start_servers(machines, bucket)
    web = f"http://{machines.addresses['web']}"
    environment = object_storage.Storage(bucket, f"{web}:9000").environment() | {
        "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled",
        "RAY_raylet_start_wait_time_s": "300",
        # A machine that no longer answers is given up within half a minute instead of several.
        "RAY_grpc_client_keepalive_time_ms": "10000",
        "RAY_grpc_client_keepalive_timeout_ms": "5000",
        "RAY_health_check_period_ms": "2000", "RAY_health_check_timeout_ms": "5000",
        "RAY_health_check_failure_threshold": "3",
    }  # fmt: skip
    command = [sys.executable, "-m", "mlimages_jax", "data", "download", str(urls),
               "--output=gs://bucket/set", "--shards=20", "--engine=ray", "--allow-private",
               f"--address-map=*.test={web}:8000", "--connections-per-host=1"]  # fmt: skip
    download = start_cluster(machines, environment, command)
    asking = set()
    while download.poll() is None and len(asking) < len(WORKERS):
        time.sleep(0.5)
        asking = {one["client"] for one in requests(machines)}
    machines.unplug("two")
    errors = download.communicate(timeout=300)[1]
    assert download.returncode == 0, errors

    found = effective(bucket / "set")
    assert set(found) == set(names) and {one.status for one in found.values()} == {OK}
    assert len(bytes_of(bucket / "set")) == len(names)
    by_host = {}
    for one in requests(machines):
        by_host.setdefault(one["host"], {}).setdefault(one["client"], []).append(one)
    assert {client for asked in by_host.values() for client in asked} == asking
    twice = [asked for asked in by_host.values() if len(asked) == 2]
    assert twice  # what the lost machine had begun
    for asked in twice:
        for one, other in itertools.product(*asked.values()):
            assert one["end"] <= other["start"] or other["end"] <= one["start"]
