# SPDX-License-Identifier: BSD-3-Clause
"""The command `mlimages` and the table of its commands."""

import inspect
import sys
from collections.abc import Sequence

from mlimages_jax import command_line, goodput
from mlimages_jax.command_line import Group
from mlimages_jax.convert.__main__ import COMMANDS as CONVERT
from mlimages_jax.features.__main__ import COMMANDS as FEATURES
from mlimages_jax.prepare import __main__ as data
from mlimages_jax.settings import config_file

PROGRAM = "mlimages"
_TASKS = "mlimages_jax.cli.tasks"
_LAUNCH = "mlimages_jax.cli.launch"
BUILD = Group(
    """Build a data set that training reads.

    mlimages data build image-folder --manual-dir=pets --data-dir=data

Every builder prints the folder of its set, for `mlimages train --data`. Its --help lists the files
it needs.
""",
    {
        "image-folder": "tfds_builders.image_folder.command:build_image_folder",
        "ml-images": "tfds_builders.ml_images.command:build_ml_images",
        "imagenet": "tfds_builders.imagenet.command:build_imagenet",
        "shapes": "tfds_builders.shapes.command:build_shapes",
    },
)
DATA = Group(
    """Get, build and check data sets.

    mlimages data import FOLDER_OR_FILE --dry-run

reports what your data are, how they are interpreted, and which commands to run next. Your images
stay where they are. Every command has its own --help, with an example.
""",
    {**data.COMMANDS.commands, "build": BUILD},
)
LAUNCH = Group(
    """Start a training on other machines.

    mlimages launch gpu --dry-run --hosts=a,b -- --config=pretrain --workdir=/shared/run

With --dry-run the commands are printed but not run. The options after -- are those of `mlimages
train`. For Kubernetes there are manifests to edit: launch/gke/ in the repository.
""",
    {
        "gpu": f"{_LAUNCH}:gpu",
        "slurm": f"{_LAUNCH}:slurm",
        "tpu-vm": f"{_LAUNCH}:tpu_vm",
    },
)
COMMANDS = Group(
    """Train, evaluate and use ResNets on Tencent ML-Images, ImageNet and images of your own.

    mlimages train --config=quickstart --workdir=workdirs/quickstart
    mlimages tag photos --checkpoint=workdirs/quickstart --output=tags.csv

The first command generates a small data set and trains on it, in minutes. Every command has its own
--help, with an example; `mlimages completion bash` prints a completion script.
""",
    {
        "train": f"{_TASKS}:train",
        "evaluate": f"{_TASKS}:evaluate",
        "suspects": f"{_TASKS}:suspects",
        "thresholds": f"{_TASKS}:thresholds",
        "tag": f"{_TASKS}:tag",
        "export": f"{_TASKS}:export",
        "serve": "mlimages_jax.serving.command:serve",
        "data": DATA,
        "features": FEATURES,
        "convert": CONVERT,
        "push": "mlimages_jax.sharing.push:push",
        "plan": "mlimages_jax.plan.__main__:plan",
        "goodput": goodput.COMMAND,
        "report": "mlimages_jax.report.command:report",
        "launch": LAUNCH,
        "versions": "mlimages_jax.installed_versions:print_versions",
        "completion": "mlimages_jax.cli.completion:completion",
    },
)
_WITH_CONFIG = ("train", "evaluate", "suspects", "thresholds", "tag", "export", "plan")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command, see `command_line.run`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    first = words[0] if words else ""
    if first in _WITH_CONFIG:
        # Exit code 1, as after every error that a restart cannot fix: launchers rely on it. tyro
        # would refuse --config.NAME, so these options are taken out and passed to what it returns.
        words, overrides = config_file.split_overrides(words)
        command_line.with_errors(
            lambda: config_file.answer_help([*_config_of(first), *words], overrides),
            mistyped_code=1,
        )
        start = command_line.run(COMMANDS, words, program=PROGRAM, mistyped_code=1)
        start(overrides)
        return
    if first == "data":
        words[1:] = data.with_full_names(words[1:])
    if first == "launch":
        if words[1:2] == ["--dry-run"]:
            words[1:3] = reversed(words[1:3])  # the script expects it after its name
        # Not through tyro: these options are the scripts' own, and tyro would refuse them.
        if words[1:2] and words[1] in LAUNCH.commands:
            launch = command_line.load(f"{_LAUNCH}:{words[1].replace('-', '_')}")
            command_line.with_errors(lambda: launch(*words[2:]))
    command_line.run(COMMANDS, words, program=PROGRAM)


def _config_of(task: str) -> list[str]:
    """Returns the option --config with the default file of a command, if it has one."""
    parameters = inspect.signature(command_line.load(str(COMMANDS.commands[task]))).parameters
    file = parameters["config"].default
    return [] if file is inspect.Parameter.empty else [f"--config={file}"]
