# SPDX-License-Identifier: BSD-3-Clause
"""Explains out-of-memory errors of a device or the host, and suggests remedies."""

import contextlib
from collections.abc import Iterator

import jax

from mlimages_jax.distributed import exit_codes
from mlimages_jax.plan import PlanError, chips, estimate
from mlimages_jax.settings import ConfigError, Settings, Train, flatten, replaced


class OutOfMemoryError(RuntimeError):
    """A device or the host ran out of memory with the sizes of the configuration."""


@contextlib.contextmanager
def named(config: Settings, *, num_classes: int = 0) -> Iterator[None]:
    """Replaces out-of-memory errors in the block by one that gives the batch size and remedies.

    Args:
        config: Settings of the task.
        num_classes: Number of classes of the data set, to plan a training; 0 if it is none.

    Raises:
        OutOfMemoryError: Instead of the error of jax or Python.
    """
    try:
        yield
    except Exception as error:  # jax, XLA and Python have no common type for it
        # An inner block may have named it already.
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
    options = [f"--config.{name}={values[name]}" for name in batches]
    return (
        f"The batch is {' and '.join(options)} over {jax.device_count()} devices: use a smaller "
        "one, --config.dtype=bfloat16 or smaller images"
    )


def _of_training(config: Train, num_classes: int) -> str:
    devices = jax.device_count()
    sizes = f"batch_size={config.batch_size} is {config.batch_size // devices} images per device"
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 0)  # CPUs have none
    has = f", which has {limit / 1e9:.1f} GB" if limit else ""
    lines = [f"--config.{sizes} at {_largest(config)} px{has}. Estimates for possible remedies:"]
    tried: dict[str, dict[str, object]] = {
        "unchanged": {},
        "half the batch": {"batch_size": max(config.batch_size // 2, 1)},
    }
    fewer: dict[str, object] = {"accumulate": 2 * config.accumulate}  # which changes no result
    remedies = (fewer, *estimate.REMEDIES)
    tried |= {estimate.as_flags(changes): changes for changes in remedies}
    for title, changes in tried.items():
        lines.append(f"  {title}: {_planned(config, changes, num_classes, devices)}")
    evaluated = config.evaluation.batch_size
    lines.append(f"For an evaluation reduce --config.evaluation.batch_size={evaluated} instead.")
    return "\n".join(lines)


def _planned(config: Train, changes: dict[str, object], num_classes: int, devices: int) -> str:
    """Estimates the memory per device, as in `mlimages plan`."""
    try:
        changed = replaced(config, changes)
        plan = estimate.make_plan(
            changed, chip=chips.find("h100"), devices=devices, num_classes=num_classes
        )  # memory does not depend on the chip
    except (PlanError, ConfigError) as error:
        return f"not possible ({error})"
    return f"{sum(plan.largest.memory.values()) / 1e9:.2f} GB per device"


def _largest(config: Train) -> int:
    return max([config.image_size, *(entry[1] for entry in config.resize)])
