# SPDX-License-Identifier: BSD-3-Clause
"""An export by processes that know nothing of each other, and join in and leave at any time.

Each claims some of the parts that are left, computes and stores them, and claims again. A part is
written whole or not at all, and its bytes do not depend on who writes it (as long as batch size and
kind of devices are the same), so it does no harm when two processes compute one, as happens when
one of them was silent for so long that the other took it for dead. Whoever finds that all parts are
stored finishes the export.

Parts are claimed several at once, so that the devices do not wait for the first images of every
part, but fewer towards the end, so that nobody waits for long (guided self-scheduling, see
Polychronopoulos and Kuck 1987).
"""

import contextlib
import time
from collections.abc import Callable, Generator

import numpy as np
from absl import logging

from mlimages_jax.distributed import preemption
from mlimages_jax.distributed.claims import POLL_SECONDS, Claims
from mlimages_jax.features.export.components import Components
from mlimages_jax.features.export.feature_formats import Layout
from mlimages_jax.features.export.feature_writer import UNFINISHED, FeatureWriter
from mlimages_jax.features.export.parts import order_of_parts, write_parts
from mlimages_jax.inference.batch_predict import Predictions, Speed
from mlimages_jax.inference.image_source import ImageSource

_MOST_CLAIMS = 8  # parts claimed at once
_FRACTION = 16  # of the parts that are left, the divisor
_MOST_REFUSALS = 16  # claims of others that are looked at in a row: each costs three requests


def export(
    folder: str,
    writer: FeatureWriter,
    layout: Layout,
    source: ImageSource,
    predict: Callable[[np.ndarray], Predictions],
    components: Callable[..., Components] | None,
    *,
    batch_size: int,
) -> Speed | None:
    """Computes parts until all are stored, by this process or others.

    Args:
        folder: Folder of the export.
        writer: Its writer.
        layout: Its layout.
        source: The images.
        predict: Computes the outputs of images at some positions.
        components: Returns the stored components or finds them, given whether parts are `started`.
        batch_size: Batch size.

    Returns:
        Speed of this process; None if others had done everything.

    Raises:
        ClaimError: If nothing can be claimed in this folder.
    """
    claims = Claims(f"{folder}/{UNFINISHED}", task="export_features")
    with claims.held("begin", unless=lambda: False):
        if writer.begin():
            logging.info("%s already contains these features", folder)
            return None
    found = None
    if components:
        with claims.held("components", unless=lambda: False):
            found = components(started=bool(writer.done().any()))
    predictions = None
    # Closed, so that an error releases the claims at once.
    with contextlib.closing(_claimed(claims, writer, layout)) as rounds:
        for numbers in rounds:
            order = order_of_parts(layout, numbers, batch_size=batch_size)
            predictions = predictions.at(order) if predictions else predict(order)
            try:
                write_parts(predictions, layout, source, writer, found)
            except FileNotFoundError:
                if not writer.is_complete():  # otherwise others have removed what is no longer used
                    raise
    with claims.held("finish", unless=writer.is_complete) as ours:
        if ours and not writer.is_complete():
            writer.finish(speed={}, components=found.digest if found else None)
    writer.clean()  # what others have left, such as the claims of dead processes
    return predictions.speed if predictions else None


def _claimed(
    claims: Claims, writer: FeatureWriter, layout: Layout
) -> Generator[np.ndarray, None, None]:
    """Yields numbers of parts, which are held until the next ones are asked for; ends with all."""
    rng = np.random.default_rng()  # from anywhere, so that processes rarely meet
    start = int(rng.integers(max(1, layout.parts)))
    while len(left := _left(writer)):
        with contextlib.ExitStack() as until_stored:
            held = _claim(claims, np.roll(left, -np.searchsorted(left, start)), until_stored)
            until_stored.callback(writer.wait)
            # Without what others have stored between the two looks.
            numbers = np.intersect1d(held, _left(writer)).astype(int)
            start = int(numbers[-1]) + 1 if len(numbers) else int(rng.integers(layout.parts))
            if len(numbers):
                yield numbers
        preemption.check()
        if not held:
            time.sleep(POLL_SECONDS)


def _left(writer: FeatureWriter) -> np.ndarray:
    """Returns the numbers of parts that are not stored, ascending."""
    left = np.flatnonzero(~writer.done())
    # In this order: once an export is complete, its parts are no longer listed as done.
    return left[:0] if len(left) and writer.is_complete() else left


def _claim(claims: Claims, left: np.ndarray, until_stored: contextlib.ExitStack) -> list[int]:
    """Claims some parts, the first ones that nobody has, and has them released later."""
    wanted = min(_MOST_CLAIMS, max(1, len(left) // _FRACTION))
    held: list[int] = []
    refusals = 0
    for number in left.tolist():
        if len(held) == wanted or refusals == _MOST_REFUSALS:
            break
        if claim := claims.attempt(f"part-{number:05d}"):
            until_stored.callback(claim.release)
            held.append(number)
        else:
            refusals += 1
    return held
