# SPDX-License-Identifier: BSD-3-Clause
"""A training that takes seconds: the quickstart's config cut down, on a few drawn images."""

import importlib.util
from pathlib import Path

from ml_collections import ConfigDict

ROOT = Path(__file__).resolve().parents[2]


def load_config(name: str, *arguments: str) -> ConfigDict:
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*arguments)


SMALL = {
    "task": "train",
    "image_size": 32,
    "batch_size": 16,
    "group_size": 4,
    "total_steps": 8,
    "log_every": 2,
    "evaluate_every": 0,
    "sharding.name": "replicated",
    "model.stage_sizes": (1, 1),
    "model.stage_widths": (16, 32),
    "model.stem_width": 8,
    "schedule.cosine.warmup_steps": 2,
    "schedule.cosine.total_steps": 8,
    "evaluation.batch_size": 16,
    "checkpoint.every": 2,
    "checkpoint.keep_latest": 2,
    "input.num_threads": 2,
}


def small_config(folder: Path, **changes) -> ConfigDict:
    config = load_config("quickstart")
    values = {**SMALL, "data.folder": str(folder), **changes}
    config.update_from_flattened_dict(values)
    return config


SMALL_FINETUNING = {
    "image_size": 32,
    "batch_size": 16,
    "group_size": 8,
    "total_steps": 8,
    "log_every": 2,
    "evaluate_every": 0,
    "model.stage_sizes": (1, 1, 1),
    "model.stage_widths": (16, 32, 32),
    "model.stem_width": 8,
    "model.stem_kernel": 3,
    "model.norm_momentum": 0.9,
    "model.dtype": "float32",
    "schedule.staircase.decay_steps": 4,
    "schedule.cosine.warmup_steps": 2,
    "schedule.cosine.total_steps": 8,
    "evaluation.batch_size": 16,
    "evaluation.sizes": (32, 48),
    "checkpoint.every": 2,
    "checkpoint.keep_latest": 10,
    "checkpoint.keep_every": 0,
    "input.num_threads": 2,
}


def small_finetuning(folder: Path, variant: str, **changes) -> ConfigDict:
    """A variant of configs/finetune.py at 32 and 48 pixels."""
    config = load_config("finetune", variant)
    sizes = {"resize": ((4, 48, 16),)} if config.resize else {}
    sizes |= {"image_size": 48} if config.image_size == 299 else {}
    values = {**SMALL_FINETUNING, **sizes, "data.folder": str(folder), **changes}
    config.update_from_flattened_dict(values)
    return config


def flags(folder: Path, **changes) -> list[str]:
    """The same as command-line flags."""
    values = {**SMALL, "data.folder": str(folder), **changes}
    return [f"--config.{name}={value}" for name, value in values.items()]
