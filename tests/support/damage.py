# SPDX-License-Identifier: BSD-3-Clause
"""Ways in which a checkpoint gets damaged on a disk, for tests and for the benchmark of faults."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path], None]  # of a step's folder


def files(step: Path) -> list[Path]:
    """All files of a step, in an order that does not change."""
    return sorted(path for path in step.rglob("*") if path.is_file())


def largest(step: Path) -> Path:
    """The file that holds the arrays."""
    return max(files(step / "state"), key=lambda path: path.stat().st_size)


def flip(path: Path, bit: int) -> None:
    """Changes one bit of a file."""
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def flip_one_of(step: Path, rng: random.Random) -> tuple[Path, int]:
    """Changes one bit of a step, every one as likely; says which."""
    paths = [path for path in files(step) if path.stat().st_size]
    sizes = [path.stat().st_size for path in paths]
    (path,) = rng.choices(paths, sizes)
    bit = rng.randrange(8 * path.stat().st_size)
    flip(path, bit)
    return path, bit


def truncate(path: Path) -> None:
    """Keeps the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zero(path: Path) -> None:
    """Zeroes the middle of a file, as a disk does with a block that was never written."""
    data = bytearray(path.read_bytes())
    third = len(data) // 3
    data[third : 2 * third] = bytes(third)
    path.write_bytes(data)


def empty(step: Path) -> None:
    """Leaves the folder."""
    shutil.rmtree(step)
    step.mkdir()


def file_instead(step: Path) -> None:
    """Leaves a file in the place of the folder."""
    shutil.rmtree(step)
    step.write_text("x")


def forget_digests(step: Path) -> None:
    """Makes it a step of the time before there were any: no damage."""
    shutil.rmtree(step / "digests")
    path = step / "_CHECKPOINT_METADATA"
    content = json.loads(path.read_text())
    del content["item_handlers"]["digests"]
    path.write_text(json.dumps(content))


KINDS: dict[str, Damage] = {
    "empty folder": empty,
    "a file": file_instead,
    "arrays truncated": lambda step: truncate(largest(step)),
    "arrays zeroed": lambda step: zero(largest(step)),
    "arrays deleted": lambda step: largest(step).unlink(),
    "arrays emptied": lambda step: largest(step).write_bytes(b""),
    "no state": lambda step: shutil.rmtree(step / "state"),
    "no _METADATA": lambda step: (step / "state/_METADATA").unlink(),
    "_METADATA truncated": lambda step: truncate(step / "state/_METADATA"),
    "manifest truncated": lambda step: truncate(step / "state/manifest.ocdbt"),
    "manifest deleted": lambda step: (step / "state/manifest.ocdbt").unlink(),
    "no _CHECKPOINT_METADATA": lambda step: (step / "_CHECKPOINT_METADATA").unlink(),
    "_CHECKPOINT_METADATA truncated": lambda step: truncate(step / "_CHECKPOINT_METADATA"),
    "no digests": lambda step: shutil.rmtree(step / "digests"),
    "digests emptied": lambda step: (step / "digests/0.json").write_bytes(b""),
    "a digest changed": lambda step: flip(step / "digests/0.json", 4000),
}
