# SPDX-License-Identifier: BSD-3-Clause
"""The parts of a training in which image size and batch size stay the same."""

from collections.abc import Sequence
from typing import NamedTuple


class Phase(NamedTuple):
    """Steps start + 1 to stop, all of one size.

    Attributes:
        start: updates done before the phase.
        stop: updates done after it.
        image_size: side of the images in pixels.
        batch_size: images in a global batch.
        first_image: images that training has taken before the phase: its place in the endless
            shuffled order.
    """

    start: int
    stop: int
    image_size: int
    batch_size: int
    first_image: int


def make_phases(
    *,
    image_size: int,
    batch_size: int,
    total_steps: int,
    resize: Sequence[tuple[int, int, int]] = (),
) -> list[Phase]:
    """Cuts a training into phases; those that begin at or after `total_steps` are left out.

    The next phase goes on in the data where the one before it stopped, so that no image of an
    epoch is skipped or seen twice when the batch changes.

    Args:
        image_size: side of the images of the first phase.
        batch_size: of the first phase.
        total_steps: updates in all.
        resize: (updates done when it begins, image size, batch size) of every further phase.

    Raises:
        ValueError: when an entry is not three whole numbers above 0 or the steps do not rise.
    """
    for entry in resize:
        if len(entry) != 3 or any(not isinstance(n, int) or n < 1 for n in entry):
            raise ValueError(
                f"resize has the entry {entry!r}; each must be (from step, image size, batch size)"
            )
    starts = [0, *(start for start, *_ in resize)]
    if starts != sorted(set(starts)):
        raise ValueError(f"the steps of resize must rise: {starts[1:]}")
    sizes = [(image_size, batch_size), *((size, batch) for _, size, batch in resize)]
    phases: list[Phase] = []
    images = 0
    for start, stop, (size, batch) in zip(starts, [*starts[1:], total_steps], sizes, strict=True):
        stop = min(stop, total_steps)
        if start < total_steps or not phases:
            phases.append(Phase(start, stop, size, batch, images))
        images += (stop - start) * batch
    return phases
