# SPDX-License-Identifier: BSD-3-Clause
"""Shards by strangers, with some bytes changed: imported or named, and nothing else is written."""

import contextlib
import io
import random
from pathlib import Path

import pytest

from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.door import import_any
from tests.support import fuzzing, image_sets
from tests.support.image_sets import table

IMAGES = image_sets.images(6)
CONTENT = table(IMAGES, label=[0, 1, 2, 0, 1, 2])
SAMPLES = {
    name: content for i, data in enumerate(IMAGES) for name, content in (
        (f"{i}.jpg", data), (f"{i}.json", {"labels": ["dog"], "n": i}), (f"{i}.cls", str(i)),
    )
}  # fmt: skip
WRITE = {
    "a.parquet": lambda path: image_sets.write_parquet(path, CONTENT),
    "a.arrow": lambda path: image_sets.write_arrow(path, CONTENT),
    "a.tar": lambda path: image_sets.write_tar(path, SAMPLES),
}


def changed(data: bytes, generator: random.Random) -> bytes:
    """A few other bytes, more of them where formats keep what they say about the rest."""
    broken = bytearray(data)
    for _ in range(generator.randint(1, 4)):
        start, end = generator.choice([(0, len(data)), (0, 2_000), (len(data) - 4_000, len(data))])
        at = generator.randrange(max(0, start), min(end, len(data)))
        broken[at] = generator.choice([generator.randrange(256), 0, 255, broken[at] ^ 1])
    if generator.random() < 0.1:
        del broken[generator.randrange(len(broken)) :]
    return bytes(broken)


def check(folder: Path, name: str, numbers: range) -> None:
    (folder / "set").mkdir(parents=True)
    path = WRITE[name](folder / "set" / name)
    data = path.read_bytes()
    for number in numbers:
        path.write_bytes(changed(data, random.Random(number)))
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                import_any(path, output=folder / "out", lists_only=True, max_skipped=0.9)
            except PrepareError as error:
                assert str(error), number
    assert {one.name for one in folder.iterdir()} <= {"set", "out"}
    assert [one.name for one in (folder / "set").iterdir()] == [name]


@pytest.mark.parametrize("name", WRITE)
def test_changed_shards(tmp_path, name):
    check(tmp_path / "a", name, range(25))


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITE)
def test_changed_shards_thoroughly(tmp_path, name):
    check(tmp_path / "a", name, range(1_000, 1_000 + fuzzing.fraction(5_000)))
