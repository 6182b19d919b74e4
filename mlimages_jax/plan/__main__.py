# SPDX-License-Identifier: BSD-3-Clause
"""Plans a training before money is spent.

    python -m mlimages_jax.plan --config=configs/pretrain.py --devices=64 --chip=h100

Memory, time, input and cost by formulas, in seconds, on any machine and without a data set. With
--check the training step is compiled as well, and the compiler's figures stand beside ours.
"""

import functools
import sys
from collections.abc import Sequence

from absl import app, flags

from mlimages_jax.files import paths
from mlimages_jax.settings import ConfigError, Train, config_file, replaced, resolved

_CONFIG = flags.DEFINE_string(
    "config", None, "A file of configs/ that trains, e.g. configs/pretrain.py:paper"
)
_DEVICES = flags.DEFINE_integer("devices", None, "Chips, over all hosts.", lower_bound=1)
_CHIP = flags.DEFINE_string("chip", None, "v4, v5e, v5p, v6e, a100, h100, h200 or b200.")
_MFU = flags.DEFINE_float(
    "mfu", 0.2, "The model's arithmetic as a share of the peak.", lower_bound=1e-3, upper_bound=1.0
)
_HOST_DEVICES = flags.DEFINE_integer(
    "devices_per_host", 0, "Chips of a host; 0: as they are usually built.", lower_bound=0
)
_PRICE = flags.DEFINE_float("price", 0.0, "Of a chip for an hour.", lower_bound=0.0)
_CLASSES = flags.DEFINE_integer(
    "classes", 0, "0: of the built set; without one 11,166, or 1,000 with the softmax loss."
)
_IMAGES = flags.DEFINE_integer(
    "images", 0, "0: of the built set; without one those of ML-Images or ImageNet."
)
_IMAGE_KB = flags.DEFINE_float(
    "image_kb", 38.3, "Of a stored JPEG; 38.3 at a short side of 320 (docs/benchmarks)."
)
_CHECK = flags.DEFINE_string(
    "check", "", "Compile the step too: 'cpu', or a TPU topology such as 'v5e:4x4' with libtpu."
)
ML_IMAGES = (11_166, 17_609_752)  # classes, images to train on; of the published list
IMAGENET = (1_000, 1_281_167)  # Russakovsky et al., 2015
# Tried in this order where a plan does not fit.
REMEDIES = (
    {"sharding.name": "optimizer"},
    {"sharding.name": "full"},
    {"model.remat": True},
    {"model.remat": True, "sharding.name": "full"},
)


def main(argv: list[str], *, overrides: Sequence[config_file.Override] = ()) -> None:
    """Prints the plan; ends with 1 when it does not fit."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}: values are --config.name=value")
    try:
        config = config_file.read_config(str(_CONFIG.value), overrides)
    except (ConfigError, paths.PathError) as error:
        sys.exit(f"error: {error}")
    if not isinstance(config, Train) or config.task != "train":
        sys.exit(f"task={config.task!r}: only a training is planned, e.g. configs/pretrain.py")
    config = resolved(config)
    # Imported here: jax takes seconds, which --help and a mistyped flag should not.
    import jax

    from mlimages_jax.plan import PlanError, chips, estimate
    from mlimages_jax.plan.report import Around, report

    jax.config.update("jax_platforms", "cpu")  # nothing is computed, whatever the machine has
    if _CHECK.value == "cpu":
        jax.config.update("jax_num_cpu_devices", _DEVICES.value)
    try:
        chip = chips.find(str(_CHIP.value))
        classes, images = _of_the_set(config)
        make_plan = functools.partial(
            estimate.make_plan,
            chip=chip,
            devices=int(_DEVICES.value or 0),
            num_classes=classes,
            mfu=_MFU.value,
        )
        plan = make_plan(config)
        remedies = {}
        for changes in () if plan.fits else REMEDIES:
            flag_text = " ".join(f"--config.{name}={value}" for name, value in changes.items())
            remedies[flag_text] = make_plan(replaced(config, changes))
        around = Around(
            mfu=_MFU.value,
            host_devices=_HOST_DEVICES.value or chip.host_chips,
            images=images,
            image_bytes=_IMAGE_KB.value * 1e3,
            price=_PRICE.value,
        )
        print(report(config, plan, around, remedies))
        if _CHECK.value:
            from mlimages_jax.plan.check import check

            print(check(config, plan, _CHECK.value, num_classes=classes))
    except (PlanError, ConfigError) as error:
        sys.exit(f"error: {error}")
    sys.exit(0 if plan.fits else 1)


def _of_the_set(config: Train) -> tuple[int, int]:
    """Classes and training images: given, or of the built set, or of the published ones."""
    classes, images = _CLASSES.value, _IMAGES.value
    if not (classes and images):
        from mlimages_jax.data.dataset import DataSet

        try:
            data = DataSet.open(config.data.folder)
            shards = data.shards().get(config.data.train_split, [])
            found = data.num_classes, sum(shard.num_records for shard in shards)
            print(f"classes and images of {config.data.folder}")
        except FileNotFoundError:
            found = IMAGENET if config.loss.name == "softmax" else ML_IMAGES
            print(
                f"no data set at {config.data.folder}: {found[0]:,} classes and {found[1]:,} "
                "images assumed (--classes, --images)"
            )
        classes, images = classes or found[0], images or found[1]
    return classes, images


def run() -> None:
    """Entry point."""
    flags.mark_flags_as_required(["config", "devices", "chip"])
    argv, overrides = config_file.split_overrides(sys.argv)
    config_file.answer_help(argv, overrides)
    app.run(functools.partial(main, overrides=overrides), argv=argv)


if __name__ == "__main__":
    run()
