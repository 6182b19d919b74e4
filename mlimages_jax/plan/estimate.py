# SPDX-License-Identifier: BSD-3-Clause
"""Estimates memory, arithmetic, communication and time of every stage of a training by formulas.

How a kind of chip works through the network, and what it reaches of its stated figures, is in
`kinds`; that communication overlaps with the rest is an assumption. docs/scaling.md compares the
formulas with XLA, and the rates with published ones.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping

import jax
from jax.sharding import AbstractMesh

from mlimages_jax.distributed import sharding
from mlimages_jax.models.resnet import ResNet
from mlimages_jax.plan import PlanError, chips, layers
from mlimages_jax.settings import ConfigError, Train, build, replaced
from mlimages_jax.settings.build import training_step
from mlimages_jax.step import state
from mlimages_jax.step.stages import Stage

FLOPS_A_MAC = 3 * 2  # multiply and add; the backward pass costs twice the forward pass
REMAT_FACTOR = 4 / 3  # a second forward pass
# Fraction of the memory; the rest is for the compiler, code and fragmentation. An assumption.
USABLE = 0.9
SUMMING = 3 * 4  # bytes a parameter and part: the sum is read and written, the gradient read
# Changes to try if a training does not fit, in this order.
REMEDIES: tuple[dict[str, object], ...] = (
    {"sharding.name": "optimizer"},
    {"sharding.name": "full"},
    {"model.remat": True},
    {"model.remat": True, "sharding.name": "full"},
)


def as_flags(changes: Mapping[str, object]) -> str:
    """Returns changes of settings as they are typed on the command line."""
    return " ".join(f"--config.{name}={value}" for name, value in changes.items())


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """The requirements of one stage.

    Attributes:
        stage: Sizes of the stage.
        memory: Bytes on one device, by purpose.
        flops: Model FLOPs per image, forward and backward, without recomputation.
        compute_seconds: Time of a step's arithmetic at the assumed utilisation.
        traffic_seconds: Time of a step's memory traffic, see `kinds.Kind`.
        moved: Bytes moved by collectives in a step, see `chips.collective_seconds`.
        collective_seconds: Time of the collectives; None if a bandwidth is unknown.
        in_turn: Whether arithmetic and memory traffic take turns, or overlap.
    """

    stage: Stage
    memory: dict[str, int]
    flops: float
    compute_seconds: float
    traffic_seconds: float
    moved: int
    collective_seconds: float | None
    in_turn: bool

    @property
    def limit(self) -> str:
        """The bottleneck of a step."""
        if self.step_seconds == self.collective_seconds:
            return "communication"
        arithmetic = self.compute_seconds >= self.traffic_seconds
        return "arithmetic" if arithmetic else "memory traffic"

    @property
    def step_seconds(self) -> float:
        """The time of arithmetic and memory traffic, or of communication if that takes longer."""
        parts = self.compute_seconds, self.traffic_seconds
        own = sum(parts) if self.in_turn else max(parts)
        return max(own, self.collective_seconds or 0.0)

    @property
    def images_per_second(self) -> float:
        """Throughput of all devices together."""
        return self.stage.batch_size / self.step_seconds

    @property
    def seconds(self) -> float:
        """Time of all steps of the stage, without evaluation and compilation."""
        return (self.stage.stop - self.stage.start) * self.step_seconds


@dataclasses.dataclass(frozen=True)
class Plan:
    """The requirements of a training.

    Attributes:
        chip: Type of the devices.
        devices: Number of devices.
        parameters: Number of parameters of the network.
        checkpoint: Bytes of the full state.
        stages: Requirements of the stages, in order.
    """

    chip: chips.Chip
    devices: int
    parameters: int
    checkpoint: int
    stages: list[StagePlan]

    @property
    def largest(self) -> StagePlan:
        """The stage that needs the most memory."""
        return max(self.stages, key=lambda each: sum(each.memory.values()))

    @property
    def fits(self) -> bool:
        """True if all stages fit into the usable memory."""
        return sum(self.largest.memory.values()) <= USABLE * self.chip.memory


def make_plan(
    config: Train, *, chip: chips.Chip, devices: int, num_classes: int, utilisation: float = 0.0
) -> Plan:
    """Plans a configuration of the task `train`.

    Args:
        config: Configuration as for `train.train`; its data set need not exist.
        chip: Type of the devices.
        devices: Number of devices.
        num_classes: Number of classes of the data set.
        utilisation: Fraction of the chips' peak that arithmetic reaches, in (0, 1]; 0 for that of
            the kind of chip.

    Raises:
        PlanError: Devices or groups do not divide a batch size.
        ConfigError: The configuration is invalid, or its parts and the devices do not divide it.
    """
    mesh = sharding.planned_mesh(devices)
    stages = build.stages(config)
    try:
        for stage in stages:
            sharding.check_batch(
                batch_size=stage.batch_size, group_size=config.group_size, mesh=mesh
            )
    except ValueError as error:
        raise PlanError(str(error)) from error
    build.accumulation(config, devices=devices)  # raises where parts and devices do not fit
    # Neither changes an array of the state, and tracing a network takes a second.
    plain = replaced(config, {"accumulate": 1, "model.remat": False})
    abstract_state = _abstract_state(plain, mesh, num_classes)
    network = build.model(config, num_classes=num_classes)
    parts = config.accumulate
    # The sum of gradients is replicated, so every part's own gradients are all-reduced into it.
    moved = parts * _moved(abstract_state, config.sharding.name)
    summing = SUMMING * _elements(abstract_state.params) * parts if parts > 1 else 0
    kind = chip.kind
    peak = chip.flops * (utilisation or kind.utilisation)
    plans = []
    for stage in stages:
        flops = FLOPS_A_MAC * layers.forward_macs(network, stage.image_size)
        images = stage.batch_size / devices
        passes = REMAT_FACTOR if network.remat else 1.0
        read = kind.traffic * layers.kept_elements(network.clone(remat=False), stage.image_size)
        plans.append(
            StagePlan(
                stage=stage,
                memory=_memory(abstract_state, network, stage, devices=devices, parts=parts),
                flops=flops,
                compute_seconds=passes * images * flops / peak,
                traffic_seconds=(images * read + summing) / (chip.bandwidth * kind.reached),
                moved=moved,
                collective_seconds=chips.collective_seconds(chip, devices, moved=moved),
                in_turn=kind.in_turn,
            )
        )
    return Plan(
        chip, devices, _elements(abstract_state.params), _whole_bytes(abstract_state), plans
    )


@functools.lru_cache(maxsize=16)
def _abstract_state(config: Train, mesh: AbstractMesh, num_classes: int) -> state.TrainState:
    return training_step(config, mesh, num_classes=num_classes).abstract_state


def smallest_accumulation(config: Train, make: Callable[[Train], Plan]) -> tuple[int, Plan] | None:
    """Returns the smallest number of parts that fits, and its plan; None if none does.

    Args:
        config: Configuration of the plan.
        make: `make_plan` for the devices.
    """
    group = config.group_size or config.batch_size
    # One by one, not by bisection: a number that does not divide the batch is no plan.
    for parts in range(1, config.batch_size // group + 1):
        try:
            plan = make(replaced(config, {"accumulate": parts}))
        except (ConfigError, PlanError):
            continue  # groups or devices do not divide such parts
        if plan.fits:
            return parts, plan
    return None


def _memory(
    abstract_state: state.TrainState, network: ResNet, stage: Stage, *, devices: int, parts: int
) -> dict[str, int]:
    """Bytes on one device, by purpose: the state, and what a step needs in addition."""
    images = stage.batch_size // devices
    at_once = images // parts
    width = network.dtype.itemsize
    kept = layers.kept_elements(network, stage.image_size) * width
    pixels = stage.image_size**2 * 3
    copies = 1 if parts == 1 else 2  # the gradients of a part, and their sum
    return state.bytes_by_part(abstract_state) | {
        "gradients": copies * 4 * _elements(abstract_state.params),  # float32
        "activations": at_once * kept,
        # uint8 images of the batch; float32 images, targets, logits, loss and gradient of a part
        "batch": images * pixels + at_once * 4 * (pixels + network.num_classes * 4),
    }


def _moved(abstract_state: state.TrainState, mode: str) -> int:
    """Bytes moved by collectives in a step for the gradients and sharded parameters.

    The gradients are all-reduced, which moves twice their bytes. With any sharding the parameters
    are also gathered, before or after the update. In theory the gradients of sharded leaves need
    only a reduce-scatter, once their bytes, but XLA did not do that for CPU or TPU
    (docs/scaling.md).
    """
    return (2 if mode == "replicated" else 3) * 4 * _elements(abstract_state.params)


def _elements(tree: object) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _whole_bytes(tree: object) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
