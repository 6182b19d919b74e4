# SPDX-License-Identifier: BSD-3-Clause
"""CRC-32C checksums of a checkpoint, which detect bits flipped silently by a disk or a copy.

Every process computes the checksums of the array shards that it writes and records which slice of
the global array each one covers. Anyone with the full arrays can verify them, regardless of the
devices they were saved from or will be restored to. Orbax saves `ArrayDigests` as another item of a
step, so the checksums are complete whenever the step is.

A checksumming codec in the array files would not do: Orbax chooses the codecs, and a file swapped
for another valid one would pass.
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

FOLDER = "digests"  # inside a step folder
_BLOCK = 2**24  # bytes per call: google_crc32c does not release the GIL
_CONFIG = ""  # key of the configuration's checksum; no array has an empty name


class DigestError(ValueError):
    """Data does not match its checksum, or the checksums cannot be read."""


class Piece(NamedTuple):
    """One slice of an array and its checksum.

    Attributes:
        bounds: Start and stop index along each axis.
        crc: CRC-32C of the slice's bytes in row-major order.
    """

    bounds: tuple[tuple[int, int], ...]
    crc: int

    @property
    def slices(self) -> tuple[slice, ...]:
        """Index of this piece in the full array."""
        return tuple(slice(start, stop) for start, stop in self.bounds)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(stop - start for start, stop in self.bounds)


class DigestedArray(NamedTuple):
    """Shape, dtype and checksums of a saved array.

    Attributes:
        shape: Global shape.
        dtype: Name of the dtype.
        pieces: Disjoint slices that cover the array.
    """

    shape: tuple[int, ...]
    dtype: str
    pieces: list[Piece]


Digests = dict[str, DigestedArray]


class ArrayDigests:
    """The checksums of a tree that is being saved; an Orbax `StatefulCheckpointable`.

    Args:
        tree: Nested containers of global arrays.
        config: JSON values saved with the tree.
    """

    def __init__(self, tree: Any, config: dict[str, Any]):
        self._tree, self._config = tree, config

    async def save(self, directory: Any) -> Awaitable[None]:
        """Copies the local shards, which may be donated afterwards, and returns the pending write.

        Args:
            directory: Orbax's handle to a directory that it may not have created yet.
        """
        pieces = [
            (name, leaf, bounds, data)
            for name, leaf in by_name(self._tree).items()
            for bounds, data in _own_pieces(leaf)
        ]
        # All copies to the host are started before the first is waited for.
        for *_, data in pieces:
            if isinstance(data, jax.Array):
                data.copy_to_host_async()
        on_host = [
            (name, leaf.shape, leaf.dtype.name, bounds, np.asarray(data))
            for name, leaf, bounds, data in pieces
        ]
        # On CPU np.asarray returns a view of the buffer, which donation would overwrite. Computing
        # the checksums now is faster than copying the arrays.
        if jax.default_backend() == "cpu":
            return self._write(directory, self._digest(on_host))
        # On accelerators the data are on the host now, so Orbax computes the checksums in its
        # background thread while training goes on.
        return self._digest_and_write(directory, on_host)

    async def load(self, directory: epath.Path) -> Awaitable[None]:
        """Verifies the tree against the saved checksums; Orbax requires a counterpart of `save`.

        Raises:
            DigestError: The tree does not match. Raised when the result is awaited.
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
    """Reads and merges the checksums written by all processes.

    Args:
        folder: The folder `FOLDER` of a step.

    Raises:
        DigestError: A checksum file is missing or damaged.
    """
    merged: Digests = {}
    processes = 1
    number = 0
    while number < processes:
        content = _read_one(folder / f"{number}.json")
        # Every file records the number of processes. Listing the folder would not do: a missing
        # file must be noticed.
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
    """Verifies full arrays against their checksums.

    Args:
        arrays: Some or all of the saved arrays, by name.
        digests: Checksums from `read`.

    Raises:
        DigestError: Arrays do not match. The message names the first and gives their number.
    """
    wrong = [name for name, array in arrays.items() if not _is_same(array, digests.get(name))]
    if wrong:
        more = f" (nor do {len(wrong) - 1} others)" if len(wrong) > 1 else ""
        raise DigestError(f"the array {wrong[0]} does not match its checksum{more}")


def verify_names(described: dict[str, Any], digests: Digests) -> None:
    """Verifies the names, shapes and dtypes in a checkpoint's metadata against the checksums.

    Args:
        described: Leaves with shape and dtype, by name, of all saved arrays.
        digests: Checksums from `read`.

    Raises:
        DigestError: An array is missing from either side or differs in shape or dtype.
    """
    # The entry without a name is the configuration's.
    theirs = {name: (entry.shape, entry.dtype) for name, entry in digests.items() if name}
    ours = {name: (tuple(leaf.shape), leaf.dtype.name) for name, leaf in described.items()}
    if differing := sorted(dict(theirs.items() ^ ours.items())):
        raise DigestError(f"its description of the array {differing[0]} is not what was saved")


def verify_config(config: dict[str, Any], digests: Digests) -> None:
    """Verifies the saved configuration against its checksum.

    Raises:
        DigestError: It does not match.
    """
    if digests.get(_CONFIG) != _of_config(config):
        raise DigestError("its configuration does not match its checksum")


def _of_config(config: dict[str, Any]) -> DigestedArray:
    # Sorted, because JSON that was read again may have its keys in another order.
    text = json.dumps(config, sort_keys=True).encode()
    return DigestedArray((), "json", [Piece((), google_crc32c.value(text))])


def _is_same(array: np.ndarray, entry: DigestedArray | None) -> bool:
    if entry is None or (array.shape, array.dtype.name) != (entry.shape, entry.dtype):
        return False
    if sum(piece.size for piece in entry.pieces) != array.size:
        return False  # the shards of some process are missing
    return all(crc32c(array[piece.slices]) == piece.crc for piece in entry.pieces)


def crc32c(array: np.ndarray) -> int:
    """Returns the CRC-32C of an array's bytes in row-major order, little-endian."""
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    raw.flags.writeable = False  # google_crc32c rejects writable buffers
    crc = 0
    for block in _blocks(raw):
        crc = google_crc32c.extend(crc, block)
    return crc


def _blocks(raw: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(raw), _BLOCK):
        yield raw[start : start + _BLOCK]


def _own_pieces(leaf: Any) -> list[tuple[tuple[tuple[int, int], ...], Any]]:
    """Bounds and values of the shards of an array that this process writes."""
    if isinstance(leaf, jax.Array):
        # Of equal replicas only one is written, by one process, as Orbax does with the arrays.
        shards = [shard for shard in leaf.addressable_shards if shard.replica_id == 0]
        return [(bounds_of(shard.index, leaf.shape), shard.data) for shard in shards]
    if jax.process_index() > 0:  # a host array is the same on every process
        return []
    return [(tuple((0, length) for length in leaf.shape), leaf)]


def bounds_of(index: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Returns start and stop index along each axis, from the index of a shard."""
    spans = (part.indices(length) for part, length in zip(index, shape, strict=True))
    return tuple((start, stop) for start, stop, _ in spans)
