# SPDX-License-Identifier: BSD-3-Clause
"""Kernels of a step by the time they take, from the profiler's own trace.

The compiled program (HLO text) and the trace are saved next to the tables: the name of a kernel
leads to its operation in the program, and the metadata of the operation to the layer.
"""

import collections
import gzip
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from peers import ours_step

from accelerator_sections import Section, Settings, table
from mlimages_jax.models.resnet import STAGE_SIZES, ResNet

STEPS = 3
SHOWN = 30
# The first pattern that matches the name of a kernel determines its kind.
KINDS = {
    "convolution": r"cudnn|xmma|cutlass|conv|implicit|wgrad|dgrad|fprop|sm\d+_",
    "product": r"gemm|cublas|nvjet|dot",
    "reduction": r"reduc",
    "gather or scatter": r"gather|scatter|sort",
    "copy": r"copy|memcpy|memset|transpose|convert",
    "other fusion": r"fusion",
}


def measure(settings: Settings) -> Iterator[Section]:
    """Traces a few steps of the full variant."""
    options = settings.step()
    group_size = min(options["group_size"], options["batch"])
    model = ResNet(
        options["classes"],
        stage_sizes=STAGE_SIZES[options["depth"]],
        group_size=group_size,
        dtype=jnp.dtype(options["dtype"]),
    )
    optimizer = ours_step.make_optimizer(model, options["size"])
    variant = ours_step.Variant(
        "full",
        group_size=group_size,
        initial=ours_step.initial_state(
            model, optimizer, size=options["size"], groups=options["batch"] // group_size
        ),
        batch=ours_step.random_batch(**{key: options[key] for key in ("batch", "size", "classes")}),
        model=model,
        optimizer=optimizer,
    )
    program = Path(settings.output) / "step_program.txt.gz"
    program.write_bytes(gzip.compress(str(variant.compiled.as_text()).encode()))
    variant.seconds(1)  # warm-up, so that the trace contains only timed steps
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            variant.seconds(STEPS)
        trace = next(Path(folder).rglob("*.xplane.pb"))
        (Path(settings.output) / "step.xplane.pb.gz").write_bytes(gzip.compress(trace.read_bytes()))
        times = kernel_times(trace)
    yield summarise({name: value / STEPS for name, value in times.items()})


def kernel_times(trace: Path) -> dict[str, float]:
    """Returns milliseconds by kernel name; on a CPU, by name of XLA's operations."""
    planes = list(jax.profiler.ProfileData.from_file(str(trace)).planes)
    on_device = [plane for plane in planes if plane.name.startswith("/device:")]
    times: dict[str, float] = collections.defaultdict(float)
    for plane in on_device or [plane for plane in planes if "CPU" in plane.name]:
        for line in plane.lines:
            # On a GPU only lines of streams count: others repeat the kernels by module and step.
            wanted = "Stream" in line.name if on_device else "XLA" in line.name
            if wanted:
                for event in line.events:
                    times[event.name] += event.duration_ns / 1e6
    return times


def kind_of(name: str) -> str:
    """Returns one of `KINDS`, or other."""
    found = (kind for kind, pattern in KINDS.items() if re.search(pattern, name, re.IGNORECASE))
    return next(found, "other")


def summarise(times: dict[str, float]) -> Section:
    """Summarises the times by kind, and the longest by name."""
    total = sum(times.values())
    kinds: dict[str, float] = dict.fromkeys([*KINDS, "other"], 0.0)
    for name, value in times.items():
        kinds[kind_of(name)] += value
    largest = sorted(times.items(), key=lambda item: -item[1])[:SHOWN]
    by_kind = [
        [kind, f"{value:.2f}", f"{value / total:.1%}"]
        for kind, value in sorted(kinds.items(), key=lambda item: -item[1])
    ]
    by_name = [
        [f"`{name[:70]}`", f"{value:.3f}", f"{value / total:.1%}"] for name, value in largest
    ]
    tables = (
        table([f"{total:.1f} ms of kernels per step", "ms", "fraction"], by_kind)
        + "\n\n"
        + table(["kernel", "ms per step", "fraction"], by_name)
    )
    values: dict[str, Any] = {"total_ms": total, "kinds": kinds, "kernels": times}
    return Section(tables, values)
