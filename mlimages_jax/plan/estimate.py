# SPDX-License-Identifier: BSD-3-Clause
"""A plan by formulas: memory, arithmetic, communication and time of every phase of a training.

Chosen, not derived: the share of the peak that the arithmetic reaches (`mfu`), and that memory
traffic and communication overlap with it. How far the formulas are from what XLA says, and where
TRAFFIC comes from, is in docs/scaling.md.
"""

import dataclasses
import math

import jax

from mlimages_jax.distributed import sharding
from mlimages_jax.models.resnet import ResNet
from mlimages_jax.plan import PlanError, chips, layers
from mlimages_jax.settings import Train, build
from mlimages_jax.settings.build import training_step
from mlimages_jax.step import state
from mlimages_jax.step.phases import Phase

FLOPS_A_MAC = 3 * 2  # a multiplication and an addition; forward, and twice as much backward
REMAT_FACTOR = 4 / 3  # a second forward pass
# Of the memory; the rest is the compiler's own, code and fragments. Assumed.
USABLE = 0.9
# Bytes that a step reads and writes for every activation that it would keep without remat, in
# bfloat16: what XLA counts for a TPU v5p (ResNet-101, 224 px, 64 images: 103 GB, remat or not).
TRAFFIC = 48


@dataclasses.dataclass(frozen=True)
class PhasePlan:
    """What a phase needs.

    Attributes:
        phase: its sizes.
        memory: bytes of one device by what they are for.
        flops: of the model an image, forward and backward; recomputation is not counted.
        compute_seconds: a step's arithmetic at the assumed share of the peak.
        traffic_seconds: what a step reads and writes at the memory's bandwidth, see TRAFFIC.
        moved: bytes that rings move in a step, see `chips.collective_seconds`.
        collective_seconds: what that takes; None where a bandwidth is not known.
    """

    phase: Phase
    memory: dict[str, int]
    flops: float
    compute_seconds: float
    traffic_seconds: float
    moved: int
    collective_seconds: float | None

    @property
    def limit(self) -> str:
        """Which of the three a step waits for."""
        seconds = {
            "arithmetic": self.compute_seconds,
            "memory traffic": self.traffic_seconds,
            "communication": self.collective_seconds or 0.0,
        }
        return max(seconds, key=seconds.__getitem__)

    @property
    def step_seconds(self) -> float:
        """The longest of arithmetic, memory traffic and communication."""
        return max(self.compute_seconds, self.traffic_seconds, self.collective_seconds or 0.0)

    @property
    def images_per_second(self) -> float:
        """Of all devices."""
        return self.phase.batch_size / self.step_seconds

    @property
    def seconds(self) -> float:
        """Of the whole phase: steps only, no evaluation, no compilation."""
        return (self.phase.stop - self.phase.start) * self.step_seconds


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a training needs.

    Attributes:
        chip: of the devices.
        devices: their number.
        parameters: of the network.
        checkpoint: bytes of the whole state.
        phases: in order.
    """

    chip: chips.Chip
    devices: int
    parameters: int
    checkpoint: int
    phases: list[PhasePlan]

    @property
    def largest(self) -> PhasePlan:
        """The phase that needs the most memory."""
        return max(self.phases, key=lambda each: sum(each.memory.values()))

    @property
    def fits(self) -> bool:
        """Whether all phases fit the memory, with some left."""
        return sum(self.largest.memory.values()) <= USABLE * self.chip.memory


def make_plan(
    config: Train, *, chip: chips.Chip, devices: int, num_classes: int, mfu: float
) -> Plan:
    """The plan for a configuration of the task `train`.

    Args:
        config: as for `train.train`; its data set need not exist.
        chip: of the devices.
        devices: their number.
        num_classes: of the data set.
        mfu: the model's operations as a share of the chips' peak, in (0, 1].

    Raises:
        PlanError: when devices or groups do not divide the batches.
        ConfigError: when the configuration cannot run.
    """
    mesh = sharding.planned_mesh(devices)
    phases = build.phases(config)
    try:
        for phase in phases:
            sharding.check_batch(
                batch_size=phase.batch_size, group_size=config.group_size, mesh=mesh
            )
    except ValueError as error:
        raise PlanError(str(error)) from error
    like = training_step(config, mesh, num_classes=num_classes).like
    network = build.model(config, num_classes=num_classes)
    moved = _moved(like, config.sharding.name)
    plans = []
    for phase in phases:
        flops = FLOPS_A_MAC * layers.forward_macs(network, phase.image_size)
        images = phase.batch_size / devices
        passes = REMAT_FACTOR if network.remat else 1.0
        read = TRAFFIC * layers.kept_elements(network.clone(remat=False), phase.image_size)
        plans.append(
            PhasePlan(
                phase=phase,
                memory=_memory(like, network, phase, devices=devices),
                flops=flops,
                compute_seconds=passes * images * flops / (chip.flops * mfu),
                traffic_seconds=images * read / chip.bandwidth,
                moved=moved,
                collective_seconds=chips.collective_seconds(chip, devices, moved=moved),
            )
        )
    return Plan(chip, devices, _elements(like.params), _whole_bytes(like), plans)


def _memory(
    like: state.TrainState, network: ResNet, phase: Phase, *, devices: int
) -> dict[str, int]:
    """Bytes of one device: the state, and what a step needs beside it."""
    images = phase.batch_size // devices
    width = network.dtype.itemsize
    kept = layers.kept_elements(network, phase.image_size) * width
    batch = phase.image_size**2 * 3 * 5 + network.num_classes * 4 * 4
    return state.bytes_by_part(like) | {
        "gradients": 4 * _elements(like.params),
        "activations": images * kept,
        "batch": images * batch,  # uint8 and float32 images; targets, logits, loss, gradient
    }


def _moved(like: state.TrainState, mode: str) -> int:
    """Bytes that rings move in a step for the gradients and cut parameters.

    The gradients are all-reduced, twice their bytes. Where something is cut the parameters are
    gathered as well, before or after the update. On paper the gradients of cut leaves need only be
    scattered, once their bytes; neither XLA for CPU nor for TPU did so (docs/scaling.md).
    """
    return (2 if mode == "replicated" else 3) * 4 * _elements(like.params)


def _elements(tree: object) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _whole_bytes(tree: object) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
