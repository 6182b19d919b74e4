# SPDX-License-Identifier: BSD-3-Clause
"""Question: what does a training step communicate, by number of devices, groups and sharding?

The step of configs/pretrain.py (ResNet-101, 11,166 classes, weighted loss) is compiled for 8, 64
and 512 virtual CPU devices, each in a process of its own, with abstract arguments: nothing runs.
Images are small, since what is communicated are gradients, parameters and statistics, whose size
does not depend on them. Operations of a kind are counted in the compiled program, and the bytes of
their whole arrays added (`4: 261.9 MB` are four, of 261.9 MB together). GB is what one device's
program takes, of which `state` is held between steps; GFLOP are of an image.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --topologies v5p:4x4x4 --size 224 --images 64     # needs libtpu

With --topologies the compiler is that of TPUs, for slices that are not there (`pip install libtpu`
of the version that `jax[tpu]` names); then memory and arithmetic are those of the program that
would run.
"""

import argparse
import datetime
import os
from typing import Any

from peers.process import Peer

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
ROW = "| {:>7} | {:>5} | {:10} |" + " {:>14} |" * 4 + " {:>18} | {:>6} | {:>5} | {:>5} | {:>7} |"


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--devices", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--topologies", nargs="+", default=[], help="in place of --devices")
    parser.add_argument("--depth", type=int, choices=(50, 101, 152), default=101)
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--images", type=int, default=32, help="of a device")
    parser.add_argument("--classes", type=int, default=11_166)
    parser.add_argument("--group_sizes", type=int, nargs="+", default=[32, 0], help="0: the batch")
    parser.add_argument("--modes", nargs="+", default=["replicated", "optimizer", "full"])
    parser.add_argument("--remat", action="store_true")
    return parser.parse_args()


def row(name: str, settings: dict[str, Any]) -> str:
    """Compiles one program; its line of the table."""
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
    """One line a program."""
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
