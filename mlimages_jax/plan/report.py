# SPDX-License-Identifier: BSD-3-Clause
"""Formats a plan as text: figures with units, assumptions, and remedies if it does not fit."""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mlimages_jax.data.streams import num_files
from mlimages_jax.plan.estimate import USABLE, Plan, StagePlan
from mlimages_jax.settings import Train

# Images per second and CPU core with the crops of pretraining, short side 320, by interpolation:
# docs/benchmarks/input.md, "per CPU s".
IMAGES_PER_CORE = {"linear": 1181, "area": 675}
IMAGES_PER_PROCESS = 1_900  # per second, of 16 threads: docs/benchmarks/accelerators.md


class ReportInputs(NamedTuple):
    """Inputs of a report that are not part of the configuration.

    Attributes:
        utilisation: Fraction of the peak that arithmetic reaches.
        host_devices: Number of devices per host.
        images: Number of images in the training split.
        image_bytes: Average size of a stored JPEG in bytes.
        price: Price of one chip per hour; 0 if unknown.
        files: Number of files of the training split; 0 if it is not built yet.
    """

    utilisation: float
    host_devices: int
    images: int
    image_bytes: float
    price: float
    files: int = 0


def report(config: Train, plan: Plan, inputs: ReportInputs, remedies: Mapping[str, Plan]) -> str:
    """Formats a plan.

    Args:
        config: Configuration of the plan.
        plan: Plan to format.
        inputs: Inputs that are not part of the configuration.
        remedies: Plans for changed settings, by the flags that set them; shown if `plan` does not
            fit and they do.
    """
    hosts = -(-plan.devices // inputs.host_devices)
    noun = "host" if hosts == 1 else "hosts"
    lines = [
        f"{plan.parameters:,} parameters on {plan.devices} x {plan.chip.title}, {hosts} {noun}; "
        f"sources of its specifications: mlimages_jax/plan/chips.py, {plan.chip.sources}",
        *_memory(config, plan, remedies),
        *_step(config, plan, inputs),
        *_input(config, plan, inputs),
        *_files(config, inputs),
        *_recipe(plan, inputs),
        *_checkpoints(config, plan),
    ]
    return "\n".join(lines)


def _memory(config: Train, plan: Plan, remedies: Mapping[str, Plan]) -> Iterator[str]:
    largest = plan.largest
    images = largest.stage.batch_size // plan.devices
    remat = ", remat" if config.model.remat else ""
    parts = config.accumulate
    divided = f" in {parts} parts of {images // parts}" if parts > 1 else ""
    yield (
        f"\nMemory per device: {images} images of {largest.stage.image_size} px{divided}, "
        f"sharding {config.sharding.name}{remat}"
    )
    for name, size in largest.memory.items():
        if size:
            yield f"  {name:16} {size / 1e9:8.2f} GB"
    total = sum(largest.memory.values())
    fraction = total / plan.chip.memory
    yield f"  {'total':16} {total / 1e9:8.2f} GB, {fraction:.0%} of {plan.chip.memory / 1e9:.1f} GB"
    if plan.fits:
        yield "  fits"
        return
    yield f"  DOES NOT FIT into {USABLE:.0%} of it (the rest is for the compiler). These would fit:"
    fitting = [flags for flags, other in remedies.items() if other.fits]
    yield from (
        f"    {flags}" for flags in fitting or ["nothing tried; use more devices or smaller images"]
    )


def _step(config: Train, plan: Plan, inputs: ReportInputs) -> Iterator[str]:
    for each in plan.stages:
        stage = each.stage
        yield (
            f"\nA step of {stage.batch_size:,} images of {stage.image_size} px: "
            f"{each.flops / 1e9:.1f} GFLOP per image, {each.flops * stage.batch_size / 1e12:,.0f} "
            "TFLOP"
        )
        arithmetic = _ms(each.compute_seconds)
        yield f"  arithmetic     {arithmetic} at {inputs.utilisation:.0%} of the peak (assumed)"
        summed = f", {parts} gradients summed" if (parts := config.accumulate) > 1 else ""
        traffic, reached = _ms(each.traffic_seconds), plan.chip.kind.reached
        yield f"  memory traffic {traffic} at {reached:.0%} of the stated bandwidth{summed}"
        yield (
            f"  communication  {_ms(each.collective_seconds)} for {each.moved / 1e6:.0f} MB at the "
            "stated interconnect"
        )
        how = "the first two take turns, the third overlaps" if each.in_turn else "they overlap"
        yield (
            f"  so             {_ms(each.step_seconds)} if {how} (assumed): "
            f"{each.images_per_second:,.0f} images/s, {_mfu(plan, each):.0%} of the peak, limited "
            f"by {each.limit}"
        )
    images = min(each.stage.batch_size for each in plan.stages) // plan.devices
    group = config.group_size or 0
    if not group or images % group:
        extent = f"groups of {group}" if group else "the full batch"
        yield (
            f"  BatchNorm statistics over {extent} span devices with {images} images each: every "
            "norm communicates, forward and backward. A --config.group_size that divides "
            f"{images} avoids that, but changes the training."
        )


def _mfu(plan: Plan, stage: StagePlan) -> float:
    """Model FLOPs utilisation: the model's arithmetic as a fraction of the chips' peak."""
    return stage.images_per_second * stage.flops / (plan.devices * plan.chip.flops)


def _input(config: Train, plan: Plan, inputs: ReportInputs) -> Iterator[str]:
    fastest = max(each.images_per_second for each in plan.stages)
    rate = fastest * min(inputs.host_devices, plan.devices) / plan.devices
    megabytes = rate * inputs.image_bytes / 1e6
    yield (
        f"\nInput per host: {rate:,.0f} images/s, {megabytes:,.0f} MB/s "
        f"of JPEG of {inputs.image_bytes / 1e3:.1f} kB"
    )
    per_core = IMAGES_PER_CORE.get(config.crop.interpolation)
    if per_core:
        yield (
            f"  {rate / per_core:,.1f} CPU cores at {per_core} images/s each "
            "(docs/benchmarks/input.md: one core of an AMD EPYC)"
        )
    workers = math.ceil(rate / (per_core or IMAGES_PER_PROCESS))
    if rate > IMAGES_PER_PROCESS and config.input.num_workers < workers:
        yield (
            f"  more than the threads of one process read ({IMAGES_PER_PROCESS:,} images/s beside "
            f"an H200, measured): --config.input.num_workers={workers} "
            f"--config.input.num_threads={workers}"
        )


def _files(config: Train, inputs: ReportInputs) -> Iterator[str]:
    """Yields how many files of records the order of the training needs."""
    streams = config.batch_size // (config.group_size or config.batch_size)
    if streams == 1:
        return
    wanted = num_files(inputs.images, streams)
    build = f"built with --num-shards={wanted}"
    if config.data.order != "streams":
        yield f"  any number of files; --config.data.order=streams would need {streams:,}, {build}"
        return
    yield (
        f"  data.order=streams: {streams:,} streams (batch_size / group_size) need as many files "
        f"or a multiple, {build}"
    )
    if inputs.files and inputs.files % streams:
        few = "too few" if inputs.files < streams else "so streams differ in length"
        yield f"  the built set has {inputs.files:,} files, {few}: build it again"


def _recipe(plan: Plan, inputs: ReportInputs) -> Iterator[str]:
    yield "\nThe complete recipe, without evaluation, compilation and waiting"
    for each in plan.stages:
        yield f"  {_stage(each, inputs)}"
    seconds = sum(each.seconds for each in plan.stages)
    chip_hours = seconds / 3600 * plan.devices
    price = f", {chip_hours * inputs.price:,.0f} at {inputs.price} per hour" if inputs.price else ""
    yield f"  total {_duration(seconds)}, {chip_hours:,.0f} chip-hours{price}"


def _stage(each: StagePlan, inputs: ReportInputs) -> str:
    stage = each.stage
    images = (stage.stop - stage.start) * stage.batch_size
    return (
        f"steps {stage.start + 1:,} to {stage.stop:,}: {stage.image_size} px, "
        f"{images / inputs.images:.1f} epochs, {images * each.flops:.1e} FLOP, "
        f"{_duration(each.seconds)}"
    )


def _checkpoints(config: Train, plan: Plan) -> Iterator[str]:
    settings = config.checkpoint
    kept = min(settings.keep_latest, config.total_steps // settings.every)
    if settings.keep_every:
        kept += config.total_steps // settings.keep_every
    seconds = settings.every * max(each.step_seconds for each in plan.stages)
    yield (
        f"\nCheckpoints: {plan.checkpoint / 1e6:,.0f} MB each, every {settings.every:,} steps "
        f"({_duration(seconds)}); up to {kept} kept, {kept * plan.checkpoint / 1e9:.1f} GB"
    )


def _ms(seconds: float | None) -> str:
    return "  unknown" if seconds is None else f"{seconds * 1e3:7.2f} ms"


def _duration(seconds: float) -> str:
    if seconds < 3600:
        return f"{seconds / 60:.1f} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 4 * 86_400 else f"{seconds / 86_400:.1f} days"
