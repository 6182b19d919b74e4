# SPDX-License-Identifier: BSD-3-Clause
"""What to say when the memory of a device, or of the host, was not enough."""

import contextlib
from collections.abc import Iterator

import jax

from mlimages_jax.distributed import exit_codes
from mlimages_jax.plan import PlanError, chips, estimate
from mlimages_jax.settings import ConfigError, Settings, Train, flatten, replaced

_REMEDIES: tuple[dict[str, object], ...] = (
    {"model.remat": True},
    {"sharding.name": "full"},
    {"model.remat": True, "sharding.name": "full"},
)


class OutOfMemoryError(RuntimeError):
    """A device or the host has no memory left for the sizes of the configuration."""


@contextlib.contextmanager
def named(config: Settings, *, num_classes: int = 0) -> Iterator[None]:
    """Says of an error for want of memory which batch it was, and what helps.

    Args:
        config: of the task.
        num_classes: of the data set, for the plan of a training; 0: no training.

    Raises:
        OutOfMemoryError: in place of jax's error, or Python's.
    """
    try:
        yield
    except Exception as error:
        if exit_codes.is_ours(error) or not exit_codes.is_out_of_memory(error):
            raise
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if num_classes and isinstance(config, Train):
            advice = _of_training(config, num_classes)
        else:
            advice = _of_prediction(config)
        raise OutOfMemoryError(f"out of memory ({said}). {advice}") from error


def _of_prediction(config: Settings) -> str:
    values = flatten(config)
    batches = [name for name in ("batch_size", "evaluation.batch_size") if name in values]
    given = [f"--config.{name}={values[name]}" for name in batches]
    return (
        f"The batch is {' and '.join(given)} over {jax.device_count()} devices: give a smaller one"
        ", --config.dtype=bfloat16 or smaller images"
    )


def _of_training(config: Train, num_classes: int) -> str:
    devices = jax.device_count()
    sizes = f"batch_size={config.batch_size} is {config.batch_size // devices} images a device"
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 0)
    has = f", which has {limit / 1e9:.1f} GB" if limit else ""
    lines = [f"--config.{sizes} at {_largest(config)} px{has}. What helps, by the plan's figures:"]
    tried: dict[str, dict[str, object]] = {
        "as it is": {},
        "half the batch": {"batch_size": max(config.batch_size // 2, 1)},
    }
    tried |= {_flags(changes): changes for changes in _REMEDIES}
    for title, changes in tried.items():
        lines.append(f"  {title}: {_planned(config, changes, num_classes, devices)}")
    evaluated = config.evaluation.batch_size
    lines.append(f"In an evaluation it is --config.evaluation.batch_size={evaluated} that counts.")
    return "\n".join(lines)


def _planned(config: Train, changes: dict[str, object], num_classes: int, devices: int) -> str:
    """Gigabytes of a device by `mlimages plan`."""
    try:
        changed = replaced(config, changes)
        plan = estimate.make_plan(
            changed, chip=chips.find("h100"), devices=devices, num_classes=num_classes, mfu=0.2
        )  # of the chip only the speed counts
    except (PlanError, ConfigError) as error:
        return f"cannot be ({error})"
    return f"{sum(plan.largest.memory.values()) / 1e9:.2f} GB a device"


def _largest(config: Train) -> int:
    return max([config.image_size, *(entry[1] for entry in config.resize)])


def _flags(changes: dict[str, object]) -> str:
    return " ".join(f"--config.{name}={value}" for name, value in changes.items())
