# SPDX-License-Identifier: BSD-3-Clause
"""Question: what does the compiled training step contain, and what would each idea change?

The step is compiled but not run: for this CPU, or for one chip of a TPU topology or one GPU, which
need not exist (`pip install libtpu` in the version that `jax[tpu]` requires; peers/gpu_target.py).
Each row is a program, compiled in its own process: `plain` is sigmoid cross-entropy without
augmentation, `weighted` has the loss of ML-Images, `augmented` colour and rotation, `full` both;
`--ideas` adds each idea of peers/step_ideas.py to the variants.

    python benchmarks/step_program.py                                   # ResNet-101, both dtypes
    python benchmarks/step_program.py --targets v5e:2x2 v5p:2x2x1 v6e:2x2 --batches 64 128 256 \
        --variants plain full --dtypes bfloat16 --results programs.jsonl
    python benchmarks/step_program.py --targets h100 --batches 256 --dtypes bfloat16
    python benchmarks/step_program.py --quick

GFLOP and MB are per image. MB is XLA's count of what the operations would read and write without
any caches, `HBM` what they read and write in main memory (peers/program_text.py); percentages are
relative to `plain`, or with an idea to the same variant without it. `temp` is the memory used in
addition to arguments and results, `GB` is all of it, copies are those of at least 1 MB in the main
computation, and `moved` is what collectives move for a step. `Mcycles` is the TPU compiler's own
estimate for a step, and `img/s` follows from it where the clock rate is known.

With --results FILE.jsonl every program's figures are kept in a file, with the number of operations
of every kind, and what is there is not compiled again; remove the file when the code changes. Below
the table are the largest float32 arrays of the batch (four or more axes) that the last program
writes: islands in a bfloat16 program. XLA for CPUs computes bfloat16 in float32 throughout.
"""

import argparse
import itertools
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from peers.process import Peer
from peers.setting import where_and_when

from mlimages_jax.models.depths import STAGE_SIZES

VARIANTS = ("plain", "weighted", "augmented", "full")
# Cycles a second, from the stated peaks: a matrix unit of 128x128 does 2 x 128^2 operations a
# cycle, and a chip has 4 (v3, v5e) or 8 (v4, v5p). Devices of v3 and v4 programs are cores, of
# which a chip of v3 has two.
CLOCKS = {"v3": 0.94e9, "v4": 1.05e9, "v5e": 1.5e9, "v5p": 1.75e9}
COLUMNS = ("GFLOP", "MB", "HBM MB", "temp MB", "GB", "copies", "moved MB", "Mcycles", "img/s")
Figures = dict[str, Any]


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--targets", nargs="+", default=["cpu"], help="cpu, v5e:2x2, h100, ...")
    parser.add_argument("--whole", action="store_true", help="for all chips of the topology")
    parser.add_argument("--depth", type=int, choices=(50, 101), default=101)
    parser.add_argument("--stages", type=int, nargs=4, help="blocks of each stage, not --depth")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--batches", type=int, nargs="+", default=[4], help="images a chip")
    parser.add_argument("--classes", type=int, default=11_166)
    parser.add_argument("--group_size", type=int, default=32)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--ideas", nargs="+", default=[], help="of peers/step_ideas.py, one by one")
    parser.add_argument("--remat", action="store_true")
    parser.add_argument("--islands", type=int, default=5, help="arrays to list")
    parser.add_argument("--results", type=Path, help="keep and reuse figures in this file")
    parser.add_argument("--quick", action="store_true", help="ResNet-50 at 64, float32")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.depth, arguments.size, arguments.dtypes = 50, 64, ["float32"]
    return arguments


def programs(arguments: argparse.Namespace) -> Iterator[Figures]:
    """Yields the settings of every program, those without an idea first."""
    names = ("size", "classes", "group_size", "remat", "whole")
    shared = {name: getattr(arguments, name) for name in names}
    shared["stages"] = list(arguments.stages or STAGE_SIZES[arguments.depth])
    shared["jax"] = jax.__version__
    for batch, target, dtype, idea, variant in itertools.product(
        arguments.batches,
        arguments.targets,
        arguments.dtypes,
        ["", *arguments.ideas],
        arguments.variants,
    ):
        own = {"batch": batch, "target": target, "dtype": dtype, "variant": variant}
        yield shared | own | {"ideas": [idea] if idea else []}


def kept_or_new(settings: Figures, results: Path | None) -> Figures:
    """Returns the figures of a program, compiled unless they are in the file.

    Raises:
        RuntimeError: The compiler failed; the message has the end of its output.
    """
    if results and results.exists():
        for line in results.read_text(encoding="utf-8").splitlines():
            kept = json.loads(line)
            if kept["settings"] == settings:
                return kept["figures"]
    with Peer("compiled_variant", settings) as peer:
        figures = peer.about
    if results:
        with results.open("a", encoding="utf-8") as out:
            print(json.dumps({"settings": settings, "figures": figures}), file=out)
    return figures


def cells(settings: Figures, figures: Figures, base: Figures | None) -> list[str]:
    """Returns the columns of a program; with a base, also what it adds to that."""
    if "does_not_fit" in figures:
        return [figures["does_not_fit"]]
    images = settings["batch"] * figures["devices"]

    def relative(name: str, scale: float, digits: int) -> str:
        if figures[name] is None:
            return "-"
        text = f"{figures[name] / scale:,.{digits}f}"
        if not base or base is figures or not base.get(name):
            return text
        return f"{text} ({figures[name] / base[name] - 1:+.1%})"

    # XLA counts for one device.
    return [
        relative("flops", settings["batch"] * 1e9, 2),
        relative("accessed", settings["batch"] * 1e6, 0),
        relative("main", settings["batch"] * 1e6, 0),
        relative("temporary", 1e6, 0),
        f"{figures['total'] / 1e9:.2f}",
        f"{figures['num_copies']}: {figures['copies'] / 1e6:.0f} MB",
        f"{figures['communicated'] / 1e6:.0f}",
        relative("cycles", 1e6, 1) if figures["cycles"] else "-",
        _rate(settings["target"], figures["cycles"], images),
    ]


def _rate(target: str, cycles: int, images: int) -> str:
    """Images per second of all devices of a program, by the compiler's estimate."""
    clock = CLOCKS.get(target.partition(":")[0])
    return f"{images * clock / cycles:,.0f}" if clock and cycles else "-"


def title(settings: Figures) -> str:
    """Returns the first column: what was compiled."""
    words = [settings["target"], f"{settings['batch']} a chip", settings["dtype"]]
    return ", ".join([*words, settings["variant"], *settings["ideas"]])


def print_row(name: str, columns: list[str]) -> None:
    """Prints a line of the table."""
    print(f"| {name} | " + " | ".join(columns) + " |", flush=True)


def main() -> None:
    """Prints the table."""
    arguments = parse_arguments()
    jax.config.update("jax_platforms", "cpu")  # the children compile; this takes no device
    blocks = arguments.stages or STAGE_SIZES[arguments.depth]
    print(
        f"{where_and_when()}\n\nBlocks {tuple(blocks)} at {arguments.size} px, "
        f"{arguments.classes} classes{', remat' * arguments.remat}\n"
    )
    print_row("", list(COLUMNS))
    print("|:--" + "|--:" * len(COLUMNS) + "|")
    known: dict[str, Figures] = {}
    failed = False
    for settings in programs(arguments):
        try:
            figures = kept_or_new(settings, arguments.results)
        except RuntimeError as error:
            failed = True
            print(error, file=sys.stderr)
            print_row(title(settings), ["failed, see the error output"])
            continue
        known[title(settings)] = figures
        bare = settings | {"ideas": []}
        base = known.get(title(bare if settings["ideas"] else bare | {"variant": "plain"}))
        print_row(title(settings), cells(settings, figures, base))
    if known:
        print(f"\nLargest float32 arrays of {list(known)[-1]}:")
        for shape, count in list(known.values())[-1].get("islands", [])[: arguments.islands]:
            print(f"    {count:4} x f32{shape}, {4 * math.prod(shape) / 1e6:.1f} MB each")
    sys.exit(failed)


if __name__ == "__main__":
    main()
