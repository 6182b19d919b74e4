# SPDX-License-Identifier: BSD-3-Clause
"""Time from the command to the first training step, and from opening a set to its first batch.

`command` starts `mlimages_jax.main` in fresh processes, for the quickstart's network and for the
full ResNet-101 with 11,166 classes (4 images of 64 pixels). `cold` compiles everything, `warm`
finds the compiled programs of an earlier start in the workdir, `restart` finds a checkpoint as
well. The peer is the minimum for any JAX program: it imports jax and flax, initialises the state of
the same network, compiles the same step, also with a compilation cache, and runs it on a synthetic
batch.

    python benchmarks/start_up.py command

`batches` opens sets of 10,000 to 17.6 million records in fresh processes: records generated on
request (no files), and an ArrayRecord set of 1,024 files, in both orders, from step 0 and from step
100,000. It measures the seconds until the first batch of 128 images is in memory.

    python benchmarks/start_up.py batches

    python benchmarks/start_up.py --quick   # both, one round, without the full network and streams

Parts of a start overlap where possible, so they need not add up to the total.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from peers.generated_set import write_set
from peers.process import BENCHMARKS, Peer
from peers.setting import where_and_when

Seconds = dict[str, float]

PARTS = ("imports", "data", "shapes", "state", "compile", "first batch", "first step")
COMMAND_ROW = "{:8} {:8} {:>7} {:>7}" + " {:>11}" * len(PARTS)
BATCHES_ROW = "{:10} {:>12} {:>8} {:>10} {:>8} {:>8} {:>10}"
RECORDS = (10_000, 1_000_000, 17_609_752)
STEPS = (0, 100_000)
STREAMS = (1, 128)
SHARDS, RECORDS_OF_SHARD = 1_024, 16
BATCH = 128
CLASSES = {"small": 16, "full": 11_166}
NETWORKS = {
    "small": [
        "--config=configs/quickstart.py", "--config.task=train", "--config.loss.name=sigmoid",
        "--config.batch_size=16", "--config.group_size=16",
    ],
    "full": [
        "--config=configs/pretrain.py:released", "--config.batch_size=4", "--config.group_size=4",
        "--config.image_size=64", "--config.evaluation.batch_size=4",
    ],
}  # fmt: skip


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("command", "batches", "both"), default="both")
    parser.add_argument("--networks", nargs="+", choices=tuple(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.networks = 1, ["small"]
    return arguments


def start(module: str, *options: str) -> Seconds:
    """Runs a module of `peers` until its first step; returns the times it reports.

    Raises:
        RuntimeError: The process reported nothing; the message has the end of its output.
    """
    # Without JAX_COMPILATION_CACHE_DIR and the like: a cache of the user's would make `cold` warm.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPIL")}
    path = os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent)])
    command = [sys.executable, "-m", f"peers.{module}", repr(time.time()), *options]
    done = subprocess.run(
        command, cwd=BENCHMARKS.parent, env=kept | {"PYTHONPATH": path}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            return json.loads(line)
    if "stop" in options[:1]:  # such a start only leaves its checkpoint behind
        return {}
    raise RuntimeError("\n".join(done.stderr.splitlines()[-20:]))


def starts(network: str, data: Path, workdir: Path) -> dict[str, Seconds]:
    """Runs one round: cold, then with a checkpoint, then without it; the peer cold and warm."""
    command = [*NETWORKS[network], f"--config.data.folder={data}", f"--workdir={workdir}"]
    found = {"cold": start("started_training", "go", *command)}
    start("started_training", "stop", *command)
    found["restart"] = start("started_training", "go", *command)
    shutil.rmtree(workdir / "checkpoints")
    found["warm"] = start("started_training", "go", *command)
    cache = workdir / "peer"
    for state in ("cold", "warm"):
        found[f"least {state}"] = start("least_start", network, str(CLASSES[network]), str(cache))
    return found


def compare_commands(arguments: argparse.Namespace, work: Path) -> None:
    """Prints medians over the rounds; `x` is the ratio to the peer in the same round."""
    print(COMMAND_ROW.format("network", "start", "total s", "x least", *PARTS))
    for network in arguments.networks:
        data = write_set(
            work / network, classes=CLASSES[network], shards=4, records=64, images=True
        )
        rounds = [
            starts(network, data, work / f"{network}-{number}")
            for number in range(arguments.rounds)
        ]
        for name in ("cold", "warm", "restart", "least cold", "least warm"):
            least = f"least {'cold' if 'cold' in name else 'warm'}"
            ratios = [one[name]["total"] / one[least]["total"] for one in rounds]
            print(
                COMMAND_ROW.format(
                    network, name.replace("least ", "peer, "),
                    f"{_median(rounds, name, 'total'):.2f}", f"{statistics.median(ratios):.2f}",
                    *(f"{_median(rounds, name, part):.2f}" for part in PARTS),
                ),
                flush=True,
            )  # fmt: skip


def _median(rounds: list[dict[str, Seconds]], name: str, part: str) -> float:
    return statistics.median(one[name].get(part, 0.0) for one in rounds)


def first_batch(streams: int, **options: Any) -> dict[str, float]:
    """Measures the first batch of one fresh process."""
    settings = {"streams": streams, "batch": BATCH, "size": 224, "folder": "", **options}
    with Peer("first_batch", settings) as peer:
        return peer.about


def compare_batches(arguments: argparse.Namespace, work: Path) -> None:
    """Prints medians over the rounds; every round measures each case once."""
    files = write_set(
        work / "files", classes=16, shards=SHARDS, records=RECORDS_OF_SHARD, images=True
    )
    counts: list[tuple[str, int, dict[str, Any]]] = [
        ("generated", records, {"records": records}) for records in RECORDS
    ]
    counts.append((f"{SHARDS} files", SHARDS * RECORDS_OF_SHARD, {"folder": str(files)}))
    orders = STREAMS[:1] if arguments.quick else STREAMS
    cases = list(itertools.product(counts, orders, STEPS))
    rounds = [
        [
            first_batch(streams, start_step=step, **options)
            for (_, _, options), streams, step in cases
        ]
        for _ in range(arguments.rounds)
    ]
    print(
        BATCHES_ROW.format("set", "records", "streams", "from step", "open s", "first s", "MB more")
    )
    for number, ((name, records, _), streams, step) in enumerate(cases):
        values = [
            statistics.median(one[number][key] for one in rounds)
            for key in ("open", "first", "added_mb")
        ]
        shown = f"{values[0]:.3f}", f"{values[1]:.3f}", f"{values[2]:.0f}"
        print(BATCHES_ROW.format(name, f"{records:,}", streams, f"{step:,}", *shown))


def main() -> None:
    """Runs the requested benchmarks."""
    arguments = parse_arguments()
    print(f"{where_and_when()}; {arguments.rounds} rounds\n")
    with tempfile.TemporaryDirectory() as folder:
        if arguments.what in ("command", "both"):
            compare_commands(arguments, Path(folder))
        if arguments.what in ("batches", "both"):
            compare_batches(arguments, Path(folder))
    print(f"\nload at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
