# SPDX-License-Identifier: BSD-3-Clause
"""What is in a compiled program: its memory and communication.

Programs may be compiled for virtual CPU devices or, where `libtpu` is installed (`pip install
jax[tpu]`), for TPUs that are not there.
"""

import math
import os
import re
from typing import Any, NamedTuple

from jax.experimental import topologies
from jax.sharding import Mesh

from mlimages_jax.distributed import sharding

MAX_LABELS = 9  # an image; ML-Images has 8.7 on average
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "s64": 8}
_COLLECTIVE = re.compile(
    r"^\s*(?:ROOT )?%?[\w.-]+ = (?P<result>.*?) (?P<kind>all-reduce|all-gather|reduce-scatter"
    r"|all-to-all|collective-permute)(?P<start>-start)?\(",
    re.MULTILINE,
)
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


class Collective(NamedTuple):
    """All operations of a kind in a program.

    Attributes:
        operations: their number.
        size: bytes of their arrays, together: of the whole array before a scatter or after a
            gather.
    """

    operations: int
    size: int


def tpu_mesh(topology: str) -> Mesh:
    """A mesh of TPUs that are not there, such as "v5e:4x4"; needs libtpu."""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # libtpu would ask the TPU machine's server
    return sharding.make_mesh(list(topologies.get_topology_desc(topology, "tpu").devices))


def program_bytes(compiled: Any) -> int:
    """Memory of one device: arguments, results and temporaries, donated ones once."""
    memory = compiled.memory_analysis()
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return used + memory.temp_size_in_bytes - memory.alias_size_in_bytes


def collectives(program: str, *, devices: int) -> dict[str, Collective]:
    """The communication in a compiled program.

    Args:
        program: the text of `compiled.as_text()`.
        devices: that every operation spans.
    """
    found: dict[str, Collective] = {}
    for match in _COLLECTIVE.finditer(program):
        kind = match["kind"]
        arrays = _ARRAY.findall(match["result"])
        if match["start"] and kind != "all-reduce":
            arrays = arrays[
                len(arrays) // 2 :
            ]  # (operands, results): what is gathered or scattered
        size = sum(_array_bytes(*array) for array in arrays)
        size *= devices if kind == "reduce-scatter" else 1
        count, total = found.get(kind, Collective(0, 0))
        found[kind] = Collective(count + 1, total + size)
    return found


def moved_bytes(found: dict[str, Collective]) -> int:
    """What rings move of these: twice an all-reduce, once any other."""
    return sum(size * (2 if kind == "all-reduce" else 1) for kind, (_, size) in found.items())


def _array_bytes(dtype: str, shape: str) -> int:
    return _BYTES.get(dtype, 0) * math.prod(int(side) for side in shape.split(",") if side)
