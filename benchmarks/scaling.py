# SPDX-License-Identifier: BSD-3-Clause
"""Question: how much does a training step communicate, by number of devices, groups and sharding?

Compiles the step of configs/pretrain.py (ResNet-101, 11,166 classes, weighted loss) for 8, 64 and
512 virtual CPU devices, each in its own process, with abstract arguments: nothing is run. Images
are small, since the communicated gradients, parameters and statistics do not depend on their size.
The table counts the collective operations of each kind in the compiled program and adds up the
bytes of their full arrays (`4: 261.9 MB` are four operations with 261.9 MB in total). GB is the
memory of one device's program, `state` the part of it that persists between steps, and GFLOP are
per image.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --topologies v5p:4x4x4 --size 224 --images 64     # needs libtpu

With --topologies it compiles for TPU slices, which need not exist (`pip install libtpu` in the
version that `jax[tpu]` requires). Memory and arithmetic are then those of the actual program.
"""

import argparse
import datetime
import os
from typing import Any

from peers.process import Peer

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
ROW = "| {:>7} | {:>5} | {:10} |" + " {:>14} |" * 4 + " {:>18} | {:>6} | {:>5} | {:>5} | {:>7} |"


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--devices", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--topologies", nargs="+", default=[], help="instead of --devices")
    parser.add_argument("--depth", type=int, choices=(50, 101, 152), default=101)
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--images", type=int, default=32, help="per device")
    parser.add_argument("--classes", type=int, default=11_166)
    parser.add_argument("--group_sizes", type=int, nargs="+", default=[32, 0], help="0: the batch")
    parser.add_argument("--modes", nargs="+", default=["replicated", "optimizer", "full"])
    parser.add_argument("--remat", action="store_true")
    return parser.parse_args()


def row(name: str, settings: dict[str, Any]) -> str:
    """Compiles one program and returns its line of the table."""
    with Peer("compiled_step", settings) as peer:
        about = peer.about
    cells = [
        "{}: {:.1f} MB".format(about["collectives"][kind][0], about["collectives"][kind][1] / 1e6)
        if kind in about["collectives"]
        else "-"
        for kind in KINDS
    ]
    return ROW.format(
        name,
        settings["group_size"] or "all",
        settings["mode"],
        *cells,
        f"{about['state'] / 1e6:.0f} MB",
        f"{about['memory'] / 1e9:.2f}",
        f"{about['gflop']:.2f}",
        f"{about['compile_seconds']:.0f}",
    )


def main() -> None:
    """Prints one line per program."""
    arguments = parse_arguments()
    print(
        f"{datetime.date.today()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the "
        f"start; ResNet-{arguments.depth}, {arguments.size} px, {arguments.images} images a "
        f"device\n"
    )
    header = ROW.format("devices", "group", "sharding", *KINDS, "state", "GB", "GFLOP", "compile")
    print(header)
    print("|" + "|".join("-" * len(cell) for cell in header.split("|")[1:-1]) + "|")
    targets: list[tuple[str, dict[str, Any]]] = [
        (name, {"topology": name}) for name in arguments.topologies
    ] or [(f"{count}", {"topology": "", "devices": count}) for count in arguments.devices]
    shared = {name: getattr(arguments, name) for name in ("depth", "size", "images", "classes")}
    shared["remat"] = arguments.remat
    for name, target in targets:
        for group_size in arguments.group_sizes:
            for mode in arguments.modes:
                settings = shared | target | {"group_size": group_size, "mode": mode}
                print(row(name, settings), flush=True)


if __name__ == "__main__":
    main()
