# SPDX-License-Identifier: BSD-3-Clause
"""Reads the text of a compiled program: what its operations move, and what the compiler expects.

XLA's own count of bytes (`cost_analysis`) adds up every operand of every operation, also those that
are in the core's own memory, and again for every window of a convolution; for GPUs that are not
there it has none. So the bytes are also counted here: every array that an operation of the main
computation reads or writes, once, where it is stored. On TPUs an array whose layout says `S(1)` is
in the core's vector memory (VMEM); all others are in the chip's main memory (HBM).
"""

import collections
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4}
_ARRAY = re.compile(rf"({'|'.join(_BYTES)})\[([\d,]*)\](\{{[^}}]*\}})?")
_OPERATION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\(([^)]*)", re.MULTILINE)
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
# These move nothing, or (`-done`) what their start has been counted for. Bytes of collectives are
# counted by `plan.compiled.collectives`.
_FREE = re.compile(
    r"parameter|tuple|get-tuple-element|bitcast|constant|iota|.*-done"
    r"|(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?"
)


class Array(NamedTuple):
    """An array: dtype, shape, and whether it is in the vector memory of a TPU's core."""

    dtype: str
    shape: tuple[int, ...]
    near: bool

    @property
    def size(self) -> int:
        """Bytes without the padding of the layout."""
        return _BYTES[self.dtype] * math.prod(self.shape)


class Operation(NamedTuple):
    """An operation of the main computation: its kind, results and operands."""

    kind: str
    results: list[Array]
    operands: list[Array]

    @property
    def moved(self) -> list[Array]:
        """The arrays that it reads and writes; none if it moves nothing."""
        if _FREE.fullmatch(self.kind):
            return []
        if self.kind.endswith("-start"):  # its results are the destination and the source
            size = min(self.results[:2], key=lambda each: each.size)
            return [size._replace(near=each.near) for each in self.results[:2]]
        return self.results + self.operands


class Moved(NamedTuple):
    """Bytes that a program moves.

    Attributes:
        main: Read from and written to main memory.
        near: The same for the vector memory of a TPU's core.
        copies: Written by copies and transposes of their own, most of which change a layout.
        num_copies: Number of those of at least 1 MB.
    """

    main: int
    near: int
    copies: int
    num_copies: int


def main_computation(text: str) -> str:
    """Returns the part of a program that its other computations are called from."""
    return text[text.index("\nENTRY ") :]


def operations(text: str) -> Iterator[Operation]:
    """Yields the operations of the main computation in order."""
    known: dict[str, list[Array]] = {}
    for name, result, kind, words in _OPERATION.findall(main_computation(text)):
        known[name] = [
            Array(dtype, tuple(int(side) for side in shape.split(",") if side), "S(1)" in layout)
            for dtype, shape, layout in _ARRAY.findall(result)
        ]
        operands = [array for each in re.findall(r"%([\w.-]+)", words) for array in known[each]]
        yield Operation(kind, known[name], operands)


def moved(text: str) -> Moved:
    """Counts the bytes that the main computation moves."""
    arrays = [array for each in operations(text) for array in each.moved]
    copies = [
        array.size
        for each in operations(text)
        if each.kind in ("copy", "transpose")
        for array in each.results
    ]
    return Moved(
        sum(array.size for array in arrays if not array.near),
        sum(array.size for array in arrays if array.near),
        sum(copies),
        sum(size >= 1e6 for size in copies),
    )


def islands(text: str, *, batch: int) -> list[tuple[tuple[int, ...], int]]:
    """Returns (shape, count) of the float32 arrays of the batch that are written, largest first.

    Those with four or more axes count, [batch, ...] or [groups, batch, ...].
    """
    found = collections.Counter(
        array.shape
        for each in operations(text)
        if not _FREE.fullmatch(each.kind)
        for array in each.results
        if array.dtype == "f32" and len(array.shape) >= 4 and batch in array.shape[:2]
    )
    return sorted(found.items(), key=lambda item: -math.prod(item[0]))


def counts(text: str) -> dict[str, int]:
    """Returns the number of operations by kind in the entire program, inside fusions too."""
    return dict(collections.Counter(kind for _, _, kind, _ in _OPERATION.findall(text)))


def estimated_cycles(text: str) -> int:
    """Adds up the cycles that the TPU compiler expects of the main computation's operations.

    A core runs them one after the other; only copies between its memories run beside them, and have
    no estimate. 0 for other devices.
    """
    return sum(map(int, _CYCLES.findall(main_computation(text))))
