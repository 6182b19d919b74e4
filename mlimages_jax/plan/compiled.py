# SPDX-License-Identifier: BSD-3-Clause
"""Extracts memory and communication from a compiled program.

Programs can be compiled for virtual CPU devices or, if `libtpu` is installed (`pip install
jax[tpu]`), for TPUs without having any.
"""

import math
import os
import re
from typing import Any, NamedTuple

from jax.experimental import topologies
from jax.sharding import Mesh

from mlimages_jax.distributed import sharding

MAX_LABELS = 9  # labels per image; ML-Images has 8.7 on average
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "s64": 8}
_COLLECTIVE = re.compile(
    r"^\s*(?:ROOT )?%?[\w.-]+ = (?P<result>.*?) (?P<kind>all-reduce|all-gather|reduce-scatter"
    r"|all-to-all|collective-permute)(?P<start>-start)?\(",
    re.MULTILINE,
)
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


class Collective(NamedTuple):
    """All collectives of one kind in a program.

    Attributes:
        operations: Number of operations.
        size: Total bytes of their arrays, each the full array before a scatter or after a gather.
    """

    operations: int
    size: int


def tpu_mesh(topology: str) -> Mesh:
    """Returns a mesh of absent TPUs from a topology such as "v5e:4x4"; needs libtpu."""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no TPU metadata server
    return sharding.make_mesh(list(topologies.get_topology_desc(topology, "tpu").devices))


def program_bytes(compiled: Any) -> int:
    """Bytes on one device: arguments, results and temporaries, counting donated buffers once."""
    memory = compiled.memory_analysis()
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes
    # A donated buffer is both an argument and a result; XLA calls it an alias.
    return used + memory.temp_size_in_bytes - memory.alias_size_in_bytes


def collectives(program: str, *, devices: int) -> dict[str, Collective]:
    """Finds the collectives in a compiled program, by kind.

    Args:
        program: Text from `compiled.as_text()`.
        devices: Number of devices that every operation spans.
    """
    found: dict[str, Collective] = {}
    for match in _COLLECTIVE.finditer(program):
        kind = match["kind"]
        arrays = _ARRAY.findall(match["result"])
        if match["start"] and kind != "all-reduce":
            # An asynchronous start returns (operands, results); only the results count.
            arrays = arrays[len(arrays) // 2 :]
        size = sum(_array_bytes(*array) for array in arrays)
        size *= devices if kind == "reduce-scatter" else 1  # its result is one device's part
        count, total = found.get(kind, Collective(0, 0))
        found[kind] = Collective(count + 1, total + size)
    return found


def moved_bytes(found: dict[str, Collective]) -> int:
    """Bytes moved in rings: twice the size of an all-reduce, once that of any other."""
    return sum(size * (2 if kind == "all-reduce" else 1) for kind, (_, size) in found.items())


def _array_bytes(dtype: str, shape: str) -> int:
    return _BYTES.get(dtype, 0) * math.prod(int(side) for side in shape.split(",") if side)
