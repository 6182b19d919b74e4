# SPDX-License-Identifier: BSD-3-Clause
"""Question: what does the compiled training step contain, and what do loss and augmentation add?

The step is compiled but not run: for this CPU, or with --topology for one TPU, which need not exist
(`pip install libtpu` in the version that `jax[tpu]` requires). Each row is a variant: `plain` is
sigmoid cross-entropy without augmentation, `weighted` has the loss of ML-Images, `augmented` colour
and rotation, `full` both. Percentages are relative to `plain`; the goal for `full` is 5%.

    python benchmarks/step_program.py                                   # ResNet-101, both dtypes
    python benchmarks/step_program.py --depth 50 --batch 32 --topology v5e:2x2 --dtypes bfloat16
    python benchmarks/step_program.py --quick

GFLOP and MB come from `cost_analysis`, divided by the images of the batch. MB is what the
operations would read and write without any caches; `temp` is the memory used in addition to
arguments and results. Operations are counted in the entire program, inside fusions too. Below the
table are the largest float32 arrays of the batch (four or more axes) that the step writes to
memory: islands in a bfloat16 program. XLA for CPUs computes bfloat16 in float32 throughout, so
islands are meaningful for TPUs only.
"""

import argparse
import collections
import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from peers import ours_step
from peers.setting import where_and_when

from mlimages_jax.distributed import sharding
from mlimages_jax.models.resnet import STAGE_SIZES, ResNet
from mlimages_jax.plan import compiled
from mlimages_jax.step import steps
from mlimages_jax.step.state import abstract_state

VARIANTS = ("plain", "weighted", "augmented", "full")
KINDS = {  # column of the table -> operations that it counts
    "conv": ("convolution",),
    "dot": ("dot",),
    "copy": ("copy", "transpose"),
    "convert": ("convert",),
    "gather": ("gather", "scatter"),
    "reduce": ("reduce", "reduce-window"),
    "all-reduce": ("all-reduce", "all-reduce-start"),
}
ROW = "{:22} {:>7} {:>6} {:>7} {:>6} {:>7} " + "{:>8}" * (len(KINDS) - 1) + "{:>12}"
WRITES_NOTHING = {"parameter", "tuple", "get-tuple-element", "bitcast", "constant", "iota"}
_OPERATION = re.compile(r"^\s*(?:ROOT )?%?[\w.-]+ = (.*?) ([a-z][\w-]*)\(", re.MULTILINE)
_FLOAT32 = re.compile(r"f32\[([\d,]+)\]")


class Program(NamedTuple):
    """Figures of a compiled step.

    Attributes:
        flops: As XLA counts them.
        traffic: Bytes that its operations read and write.
        temporary: Bytes in addition to arguments and results.
        operations: Number of operations by name.
        islands: (shape, count) of the float32 arrays that it writes, largest first.
    """

    flops: float
    traffic: float
    temporary: int
    operations: collections.Counter[str]
    islands: list[tuple[tuple[int, ...], int]]


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--depth", type=int, choices=(50, 101), default=101)
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--classes", type=int, default=11_166)
    parser.add_argument("--group_size", type=int, default=32)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--topology", default="", help="compile for a chip of it: v5e:2x2")
    parser.add_argument("--remat", action="store_true")
    parser.add_argument("--islands", type=int, default=5, help="arrays to list")
    parser.add_argument("--quick", action="store_true", help="ResNet-50 at 64, float32")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.depth, arguments.size, arguments.dtypes = 50, 64, ["float32"]
    return arguments


def abstract_batch(arguments: argparse.Namespace, mesh: Mesh) -> steps.Batch:
    """Returns the shapes of the batch that `ours_step.random_batch` makes."""
    count, side = arguments.batch, arguments.size

    def leaf(shape: tuple[int, ...], dtype: Any) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.by_example(mesh))

    return {
        "image": leaf((count, side, side, 3), jnp.uint8),
        "labels": leaf((count, ours_step.NUM_LABELS), jnp.int32),
        "confidences": leaf((count, ours_step.NUM_LABELS), jnp.float32),
        "mask": leaf((count,), jnp.bool_),
    }


def compile_step(variant: str, dtype: str, arguments: argparse.Namespace, mesh: Mesh) -> Any:
    """Compiles a variant."""
    group_size = min(arguments.group_size, arguments.batch)
    model = ResNet(
        arguments.classes,
        stage_sizes=STAGE_SIZES[arguments.depth],
        group_size=group_size,
        dtype=jnp.dtype(dtype),
        remat=arguments.remat,
    )
    optimizer = ours_step.make_optimizer(model, arguments.size)
    groups = arguments.batch // group_size
    abstract = abstract_state(
        model, optimizer, mesh=mesh, image_size=arguments.size, count_groups=groups
    )
    step = ours_step.make_step(variant, group_size=group_size, model=model, optimizer=optimizer)
    places = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(places, sharding.replicated(mesh)))
    return jitted.lower(abstract, abstract_batch(arguments, mesh)).compile()


def look_into(program: Any, batch: int) -> Program:
    """Reads costs and text of a program; islands are [batch, ...] or [groups, batch, ...]."""
    text, costs = program.as_text(), program.cost_analysis()
    entry = text[text.index("\nENTRY ") :]
    islands: collections.Counter[tuple[int, ...]] = collections.Counter()
    for result, operation in _OPERATION.findall(entry):
        if operation not in WRITES_NOTHING:
            shapes = [tuple(map(int, found.split(","))) for found in _FLOAT32.findall(result)]
            islands.update(each for each in shapes if len(each) >= 4 and batch in each[:2])
    return Program(
        costs["flops"],
        costs["bytes accessed"],
        program.memory_analysis().temp_size_in_bytes,
        collections.Counter(operation for _, operation in _OPERATION.findall(text)),
        sorted(islands.items(), key=lambda item: -math.prod(item[0])),
    )


def print_row(name: str, program: Program, base: Program | None, images: int) -> None:
    """Prints one line; with a base, what the program adds to it."""
    added = ["-", "-"]
    if base and base is not program:
        pairs = (program.flops, base.flops), (program.traffic, base.traffic)
        added = [f"{mine / other - 1:+.1%}" for mine, other in pairs]
    figures = f"{program.flops / images / 1e9:.2f}", f"{program.traffic / images / 1e6:.0f}"
    counts = [sum(program.operations[name] for name in names) for names in KINDS.values()]
    temporary = f"{program.temporary / 1e6:.0f}"
    print(ROW.format(name, figures[0], added[0], figures[1], added[1], temporary, *counts))


def print_islands(program: Program, limit: int) -> None:
    """Prints the largest float32 arrays with four or more axes."""
    for shape, count in program.islands[:limit]:
        print(f"    {count:4} x f32{list(shape)}, {4 * math.prod(shape) / 1e6:.1f} MB each")


def main() -> None:
    """Prints one table for each dtype."""
    arguments = parse_arguments()
    if arguments.topology:
        # Nothing is run, so no device of this machine is taken.
        jax.config.update("jax_platforms", "cpu")
    print(where_and_when())
    mesh = sharding.make_mesh(jax.devices()[:1])
    if arguments.topology:
        try:
            devices = compiled.tpu_mesh(arguments.topology).devices.flat
        except (RuntimeError, ValueError) as error:
            raise SystemExit(
                f"--topology {arguments.topology}: no compiler; is libtpu installed? {error}"
            ) from error
        mesh = sharding.make_mesh([devices[0]])
    target = arguments.topology or "this CPU"
    print(
        f"ResNet-{arguments.depth} at {arguments.size}, batch {arguments.batch}, "
        f"{arguments.classes} classes, compiled for {target}{', remat' * arguments.remat}\n"
    )
    print(ROW.format("", "GFLOP", "", "MB", "", "temp MB", *KINDS))
    for dtype in arguments.dtypes:
        found: dict[str, Program] = {}
        for variant in arguments.variants:
            program = compile_step(variant, dtype, arguments, mesh)
            found[variant] = look_into(program, arguments.batch)
            row = f"{dtype}, {variant}"
            print_row(row, found[variant], found.get("plain"), arguments.batch)
        print_islands(found[arguments.variants[-1]], arguments.islands)


if __name__ == "__main__":
    main()
