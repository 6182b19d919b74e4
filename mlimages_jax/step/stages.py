# SPDX-License-Identifier: BSD-3-Clause
"""Stages of the resize schedule: parts of a training with constant image and batch size."""

from collections.abc import Sequence
from typing import NamedTuple


class Stage(NamedTuple):
    """Steps start + 1 to stop, with constant image size and batch size.

    Attributes:
        start: Updates done before the stage.
        stop: Updates done after it.
        image_size: Side of the images in pixels.
        batch_size: Number of images in a global batch.
        first_image: Number of images used before the stage, which is its position in the endless
            shuffled order.
    """

    start: int
    stop: int
    image_size: int
    batch_size: int
    first_image: int


def make_stages(
    *,
    image_size: int,
    batch_size: int,
    total_steps: int,
    resize: Sequence[tuple[int, int, int]] = (),
) -> list[Stage]:
    """Splits a training into stages, omitting those that start at or after `total_steps`.

    Each stage continues in the data where the previous one stopped, so no image of an epoch is
    skipped or repeated when the batch size changes.

    Args:
        image_size: Side of the images in the first stage, in pixels.
        batch_size: Number of images in a global batch of the first stage.
        total_steps: Total number of updates.
        resize: (updates done at its start, image size, batch size) of every further stage.

    Raises:
        ValueError: An entry is not three positive integers, or the steps do not increase.
    """
    for entry in resize:
        if len(entry) != 3 or any(not isinstance(n, int) or n < 1 for n in entry):
            raise ValueError(
                f"resize has the entry {entry!r}; each must be (from step, image size, batch size)"
            )
    starts = [0, *(start for start, *_ in resize)]
    if starts != sorted(set(starts)):
        raise ValueError(f"the steps of resize must increase: {starts[1:]}")
    sizes = [(image_size, batch_size), *((size, batch) for _, size, batch in resize)]
    stages: list[Stage] = []
    images = 0
    for start, stop, (size, batch) in zip(starts, [*starts[1:], total_steps], sizes, strict=True):
        stop = min(stop, total_steps)
        # There is always one stage, also in a training of 0 steps, which only evaluates.
        if start < total_steps or not stages:
            stages.append(Stage(start, stop, size, batch, images))
        images += (stop - start) * batch
    return stages
