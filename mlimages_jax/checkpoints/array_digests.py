# SPDX-License-Identifier: BSD-3-Clause
"""CRC-32C of everything in a checkpoint, kept beside it: a disk or a copy may change bits silently.

Every process digests the pieces of arrays that it writes, and says which part of the array each one
is. Whoever has the whole arrays can verify them, whatever the devices they were or will be on.
Orbax saves `ArrayDigests` as one more part of a step, so that they are complete when the step is.

Why not a codec of the array files: Orbax chooses these, and a swapped file would pass.
"""

import json
import math
from collections.abc import Awaitable, Iterator
from typing import Any, NamedTuple

import google_crc32c
import jax
import numpy as np
from etils import epath

from mlimages_jax.checkpoints.compatibility import by_name

FOLDER = "digests"  # of a step
_BLOCK = 2**24  # bytes digested at once: the function keeps Python's lock
_CONFIG = ""  # the name of the configuration among the arrays


class DigestError(ValueError):
    """Something differs from its digest, or the digests cannot be read; the message says what."""


class Piece(NamedTuple):
    """Part of an array.

    Attributes:
        bounds: first and last + 1 along each axis.
        crc: of its bytes, rows first.
    """

    bounds: tuple[tuple[int, int], ...]
    crc: int

    @property
    def slices(self) -> tuple[slice, ...]:
        """Cuts it out of the array."""
        return tuple(slice(start, stop) for start, stop in self.bounds)

    @property
    def size(self) -> int:
        """Its elements."""
        return math.prod(stop - start for start, stop in self.bounds)


class DigestedArray(NamedTuple):
    """What is known of a saved array.

    Attributes:
        shape: of the whole.
        dtype: its name.
        pieces: which together are the whole.
    """

    shape: tuple[int, ...]
    dtype: str
    pieces: list[Piece]


Digests = dict[str, DigestedArray]


class ArrayDigests:
    """The digests of a tree that is being saved; an Orbax `StatefulCheckpointable`.

    Args:
        tree: of global arrays.
        config: JSON values that are saved with it.
    """

    def __init__(self, tree: Any, config: dict[str, Any]):
        self._tree, self._config = tree, config

    async def save(self, directory: Any) -> Awaitable[None]:
        """Takes what it needs of the arrays, which may be donated afterwards; writes later.

        Args:
            directory: made by Orbax, at some time.
        """
        pieces = [
            (name, leaf, bounds, data)
            for name, leaf in by_name(self._tree).items()
            for bounds, data in _own_pieces(leaf)
        ]
        for *_, data in pieces:
            if isinstance(data, jax.Array):
                data.copy_to_host_async()
        on_host = [
            (name, leaf.shape, leaf.dtype.name, bounds, np.asarray(data))
            for name, leaf, bounds, data in pieces
        ]
        if jax.default_backend() == "cpu":  # these are views; digesting is faster than copying
            return self._write(directory, self._digest(on_host))
        return self._digest_and_write(directory, on_host)

    async def load(self, directory: epath.Path) -> Awaitable[None]:
        """The counterpart of `save`, which Orbax asks for: compares the tree with what was saved.

        Raises:
            DigestError: when awaited; they differ.
        """
        return self._compare(directory)

    async def _compare(self, directory: epath.Path) -> None:
        digests = read(directory)
        verify_config(self._config, digests)
        verify({name: np.asarray(leaf) for name, leaf in by_name(self._tree).items()}, digests)

    def _digest(self, on_host: list[Any]) -> Digests:
        found: Digests = {}
        if jax.process_index() == 0:
            found[_CONFIG] = _of_config(self._config)
        for name, shape, dtype, bounds, data in on_host:
            entry = found.setdefault(name, DigestedArray(shape, dtype, []))
            entry.pieces.append(Piece(bounds, crc32c(data)))
        return found

    async def _digest_and_write(self, directory: Any, on_host: list[Any]) -> None:
        await self._write(directory, self._digest(on_host))

    async def _write(self, directory: Any, found: Digests) -> None:
        folder = await directory.await_creation()
        content = json.dumps({"processes": jax.process_count(), "arrays": found})
        first = f"{google_crc32c.value(content.encode()):08x}"
        (folder / f"{jax.process_index()}.json").write_text(f"{first}\n{content}\n")


def read(folder: epath.Path) -> Digests:
    """The digests of all processes.

    Args:
        folder: `FOLDER` of a step.

    Raises:
        DigestError: some are missing or damaged.
    """
    merged: Digests = {}
    processes = 1
    number = 0
    while number < processes:
        content = _read_one(folder / f"{number}.json")
        processes = content["processes"]
        for name, (shape, dtype, pieces) in content["arrays"].items():
            entry = merged.setdefault(name, DigestedArray(tuple(shape), dtype, []))
            entry.pieces.extend(Piece(tuple(map(tuple, bounds)), crc) for bounds, crc in pieces)
        number += 1
    return merged


def _read_one(path: epath.Path) -> dict[str, Any]:
    try:
        first, _, content = path.read_bytes().partition(b"\n")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise DigestError(f"its checksums are missing ({path.name})") from None
    content = content.removesuffix(b"\n")
    if first != b"%08x" % google_crc32c.value(content):
        raise DigestError(f"its checksums themselves are damaged ({path.name})")
    return json.loads(content)


def verify(arrays: dict[str, np.ndarray], digests: Digests) -> None:
    """Compares whole arrays with their digests.

    Args:
        arrays: some or all of those digested, by name.
        digests: from `read`.

    Raises:
        DigestError: names an array that differs, and says how many do.
    """
    wrong = [name for name, array in arrays.items() if not _is_same(array, digests.get(name))]
    if wrong:
        more = f" (nor do {len(wrong) - 1} others)" if len(wrong) > 1 else ""
        raise DigestError(f"the array {wrong[0]} does not match its checksum{more}")


def verify_names(described: dict[str, Any], digests: Digests) -> None:
    """Compares names, shapes and dtypes with those digested.

    Args:
        described: leaves with shape and dtype, by name, of all that was saved.
        digests: from `read`.

    Raises:
        DigestError: names an array that one of the two lacks, or that has another shape.
    """
    theirs = {name: (entry.shape, entry.dtype) for name, entry in digests.items() if name}
    ours = {name: (tuple(leaf.shape), leaf.dtype.name) for name, leaf in described.items()}
    if differing := sorted(dict(theirs.items() ^ ours.items())):
        raise DigestError(f"its description of the array {differing[0]} is not what was saved")


def verify_config(config: dict[str, Any], digests: Digests) -> None:
    """Compares the configuration with the one digested.

    Raises:
        DigestError: it differs.
    """
    if digests.get(_CONFIG) != _of_config(config):
        raise DigestError("its configuration does not match its checksum")


def _of_config(config: dict[str, Any]) -> DigestedArray:
    text = json.dumps(config, sort_keys=True).encode()
    return DigestedArray((), "json", [Piece((), google_crc32c.value(text))])


def _is_same(array: np.ndarray, entry: DigestedArray | None) -> bool:
    if entry is None or (array.shape, array.dtype.name) != (entry.shape, entry.dtype):
        return False
    if sum(piece.size for piece in entry.pieces) != array.size:
        return False  # a process's part is missing
    return all(crc32c(array[piece.slices]) == piece.crc for piece in entry.pieces)


def crc32c(array: np.ndarray) -> int:
    """CRC-32C of an array's bytes, rows first, little-endian."""
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    raw.flags.writeable = False  # what google_crc32c insists on
    crc = 0
    for block in _blocks(raw):
        crc = google_crc32c.extend(crc, block)
    return crc


def _blocks(raw: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(raw), _BLOCK):
        yield raw[start : start + _BLOCK]


def _own_pieces(leaf: Any) -> list[tuple[tuple[tuple[int, int], ...], Any]]:
    """What this process writes of an array: the bounds and values of each piece."""
    if isinstance(leaf, jax.Array):
        shards = [shard for shard in leaf.addressable_shards if shard.replica_id == 0]
        return [(bounds_of(shard.index, leaf.shape), shard.data) for shard in shards]
    if jax.process_index() > 0:  # an array of the host is the same everywhere
        return []
    return [(tuple((0, length) for length in leaf.shape), leaf)]


def bounds_of(index: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """First and last + 1 along each axis, of a shard's index."""
    spans = (part.indices(length) for part, length in zip(index, shape, strict=True))
    return tuple((start, stop) for start, stop, _ in spans)
