# SPDX-License-Identifier: BSD-3-Clause
"""The command `mlimages plan`, also as `python -m mlimages_jax.plan`."""

import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

from tyro.conf import OmitArgPrefixes

from mlimages_jax import command_line
from mlimages_jax.files import paths
from mlimages_jax.settings import ConfigError, Train, config_file, replaced, resolved

ML_IMAGES = (11_166, 17_609_752)  # classes, and training images of the published list
IMAGENET = (1_000, 1_281_167)  # Russakovsky et al., 2015


@dataclasses.dataclass(frozen=True)
class Machines:
    """Chips to plan for, and the data set.

    Attributes:
        devices: number of chips, over all hosts.
        chip: v3, v4, v5e, v5p, v6e, a100, h100, h200 or b200.
        mfu: fraction of the chip's peak that arithmetic reaches; 0: that of the kind of chip, from
            docs/scaling.md.
        devices_per_host: chips per host; 0: the usual number for the chip.
        price: price of a chip per hour, in any currency; 0: unknown.
        classes: number of classes; 0: that of the built set, or without one 11,166 (1,000 with the
            softmax loss).
        images: number of training images; 0: that of the built set, or without one that of
            ML-Images (ImageNet with the softmax loss).
        image_kb: mean size of a stored JPEG in kB; it is 38.3 at a short side of 320.
        fit: plan with the smallest config.accumulate that fits.
        check: also compile the step, for cpu or, with libtpu, for a TPU topology such as v5e:4x4.
    """

    devices: int
    chip: str
    mfu: float = 0.0
    devices_per_host: int = 0
    price: float = 0.0
    classes: int = 0
    images: int = 0
    image_kb: float = 38.3
    fit: bool = False
    check: Annotated[str, command_line.optional("STR")] = ""

    def __post_init__(self) -> None:
        for name, minimum in (
            ("devices", 1), ("devices_per_host", 0), ("price", 0), ("classes", 0), ("images", 0),
        ):  # fmt: skip
            if (value := getattr(self, name)) < minimum:
                raise ConfigError(f"{name}={value}: at least {minimum}")
        if self.mfu and not 1e-3 <= self.mfu <= 1:
            raise ConfigError(f"mfu={self.mfu}: from 0.001 to 1, a fraction of the chip's peak")


def plan(
    *, config: str, machines: OmitArgPrefixes[Machines]
) -> Callable[[Sequence[config_file.Override]], None]:
    """Estimate memory, time and cost of a training before money is spent.

        mlimages plan --config=configs/pretrain.py --devices=64 --chip=h100 --price=3

    Uses formulas: takes seconds on any machine and needs no data set. --check also compiles the
    training step and prints the compiler's numbers beside ours. --config.NAME=VALUE changes a
    setting. The exit code is 1 if the training does not fit; --fit divides its batches into parts
    until it does.

    Args:
        config: FILE or FILE:VARIANT of a training, or the name of an included config.
        machines: chips and data set.
    """
    return functools.partial(_answer, config, machines)


def _answer(config_name: str, asked: Machines, overrides: Sequence[config_file.Override]) -> None:
    """Prints the plan; exits with 1 if it does not fit."""
    try:
        config = config_file.read_config(config_name, overrides)
    except (ConfigError, paths.PathError) as error:
        sys.exit(f"error: {error}")
    if not isinstance(config, Train) or config.task != "train":
        sys.exit(f"task={config.task!r}: only trainings can be planned, e.g. configs/pretrain.py")
    config = resolved(config)
    # Imported here: jax takes seconds to import, too long for --help or a mistyped flag.
    import jax

    from mlimages_jax.plan import PlanError, chips, estimate
    from mlimages_jax.plan.report import ReportInputs, report

    jax.config.update("jax_platforms", "cpu")  # nothing is computed, so leave any accelerator alone
    if asked.check == "cpu":
        jax.config.update("jax_num_cpu_devices", asked.devices)
    try:
        chip = chips.find(asked.chip)
        classes, images, files = _of_the_set(config, asked)
        make_plan = functools.partial(
            estimate.make_plan,
            chip=chip,
            devices=asked.devices,
            num_classes=classes,
            utilisation=asked.mfu,
        )
        plan = make_plan(config)
        remedies = {}
        if not plan.fits:
            divided = estimate.smallest_accumulation(config, make_plan)
            if divided and asked.fit:
                parts, plan = divided
                config = replaced(config, {"accumulate": parts})
                print(f"--config.accumulate={parts}: the fewest parts that fit")
            elif divided:
                remedies[f"--config.accumulate={divided[0]}"] = divided[1]
        for changes in () if plan.fits else estimate.REMEDIES:
            remedies[estimate.as_flags(changes)] = make_plan(replaced(config, changes))
        inputs = ReportInputs(
            utilisation=asked.mfu or chip.kind.utilisation,
            host_devices=asked.devices_per_host or chip.host_chips,
            images=images,
            image_bytes=asked.image_kb * 1e3,
            price=asked.price,
            files=files,
        )
        print(report(config, plan, inputs, remedies))
        if asked.check:
            from mlimages_jax.plan.check import check

            print(check(config, plan, asked.check, num_classes=classes))
    except (PlanError, ConfigError) as error:
        sys.exit(f"error: {error}")
    sys.exit(0 if plan.fits else 1)


def _of_the_set(config: Train, asked: Machines) -> tuple[int, int, int]:
    """Returns the numbers of classes and images: as given, of the built set, or as published.

    The third is the number of files of the built set; 0 if it was not needed or there is none.
    """
    classes, images, files = asked.classes, asked.images, 0
    if not (classes and images):
        from mlimages_jax.data.dataset import DataSet

        try:
            data = DataSet.open(config.data.folder)
            shards = data.shards().get(config.data.train_split, [])
            found = data.num_classes, sum(shard.num_records for shard in shards)
            files = len(shards)
            print(f"classes and images of {config.data.folder}")
        except FileNotFoundError:
            found = IMAGENET if config.loss.name == "softmax" else ML_IMAGES
            print(
                f"no data set at {config.data.folder}: {found[0]:,} classes and {found[1]:,} "
                "images assumed (--classes, --images)"
            )
        classes, images = classes or found[0], images or found[1]
    return classes, images, files


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command, see `command_line.run`; a mistyped option exits with 1 too."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    words, overrides = config_file.split_overrides(words)
    command_line.with_errors(lambda: config_file.answer_help(words, overrides), mistyped_code=1)
    place = "mlimages_jax.plan.__main__:plan"
    answer = command_line.run(place, words, program="python -m mlimages_jax.plan", mistyped_code=1)
    answer(overrides)


if __name__ == "__main__":
    main()
