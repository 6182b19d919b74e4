# SPDX-License-Identifier: BSD-3-Clause
"""A training that takes seconds: the quickstart's config cut down, on a few drawn images."""

from pathlib import Path

from mlimages_jax import settings

ROOT = Path(__file__).resolve().parents[2]


def load_config(name: str, *variant: str, **changes) -> settings.Settings:
    """The settings of configs/<name>.py:<variant>, with changes by dotted names."""
    return settings.load(":".join((str(ROOT / "configs" / f"{name}.py"), *variant)), changes)


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


def small_config(folder: Path, **changes) -> settings.Train:
    return load_config("quickstart", **{**SMALL, "data.folder": str(folder), **changes})


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


def small_finetuning(folder: Path, variant: str, **changes) -> settings.Train:
    """A variant of configs/finetune.py at 32 and 48 pixels."""
    sizes = {"resize": ((4, 48, 16),)} if variant == "224to299" else {}
    sizes |= {"image_size": 48} if variant == "299" else {}
    values = {**SMALL_FINETUNING, **sizes, "data.folder": str(folder), **changes}
    return load_config("finetune", variant, **values)


def flags(folder: Path, **changes) -> list[str]:
    """The same as command-line flags."""
    values = {**SMALL, "data.folder": str(folder), **changes}
    return [f"--config.{name}={value}" for name, value in values.items()]
