# SPDX-License-Identifier: BSD-3-Clause
"""Files that are made to harm whoever reads them: one line each, and bounded memory."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.peers.job import inherited_environment
from mlimages_jax.convert.sorted_table import varint, write_table
from mlimages_jax.files.checksums import masked_crc

ROOT = Path(__file__).resolve().parents[2]
MEGABYTES = 700  # that a file may take: the longest header that is read at all takes 540
ADDRESSES = 4_000  # megabytes of address space, of which threads take some without using it


def _safetensors(header: object, data: bytes = b"", *, claimed: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if claimed is None else claimed) + text + data


def _entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def _with(**metadata: str) -> bytes:
    """A small network's worth of arrays, with this metadata."""
    return _safetensors({"__metadata__": metadata, "params/head/bias": _entry([2], 0, 8)}, bytes(8))


HEADERS = {
    "empty": b"",
    "short": b"\x01\x00",
    "longer_than_the_file": _safetensors({}, claimed=2**63 - 1),
    "gigabytes": _safetensors({}, claimed=4 << 30),
    "beyond_64_bits_when_added": _safetensors({}, claimed=2**64 - 1),
    "not_json": _safetensors(b"\xff" * 64),
    "deep": _safetensors(b"[" * 100_000),
    "overlap": _safetensors({"a": _entry([2], 0, 8), "b": _entry([2], 4, 12)}, bytes(12)),
    "negative": _safetensors({"a": _entry([2], -8, 0)}, bytes(8)),
    "backwards": _safetensors({"a": _entry([2], 8, 0)}, bytes(8)),
    "outside": _safetensors({"a": _entry([2**20], 0, 2**22)}, bytes(8)),
    "absurd_shape": _safetensors({"a": _entry([2**40, 2**40], 0, 8)}, bytes(8)),
    "empty_but_absurd": _safetensors({"a": _entry([0, 2**62, 2**62], 0, 0)}),
    "hole": _safetensors({"a": _entry([2], 8, 16)}, bytes(16)),
    "twice": _safetensors(
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
        b'"a":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}',
        bytes(12),
    ),
    "unknown_dtype": _safetensors({"a": _entry([2], 0, 8, "PICKLE")}, bytes(8)),
    "many_arrays": _safetensors(
        json.dumps({f"{i:x}": _entry([0], 0, 0) for i in range(200_000)}).encode()
    ),
    "long_name": _safetensors({"a/" * 100_000: _entry([2], 0, 8)}, bytes(8)),
    "array_and_module": _safetensors({"a": _entry([1], 0, 4), "a/b": _entry([1], 4, 8)}, bytes(8)),
    "too_long_a_header": _safetensors(b" " * (33 << 20)),
    "step_nan": _with(step="NaN"),
    "step_huge": _with(step="9" * 5_000),
    "step_negative": _with(step="-1"),
    "config_deep": _with(config="[" * 100_000 + "]" * 100_000),
    "config_long": _with(config="[" + "[]," * 1_000_000 + "[]]"),
    "usage_long": _with(usage="[" + "[]," * 6_000_000 + "[]]"),
    "config_is_a_list": _with(config="[]"),
    "size_nan": _with(config='{"image_size": NaN}'),
    "size_huge": _with(config=json.dumps({"image_size": 10**12})),
    "size_text": _with(config=json.dumps({"image_size": "224"})),
    "resize_odd": _with(config=json.dumps({"image_size": 8, "resize": [[1]]})),
    "view_unknown": _with(config=json.dumps({"evaluation": {"views": ["x"]}})),
    "weight_infinite": _with(
        config='{"loss": {"name": "weighted", "weighted": {"positive_weight": Infinity}}}'
    ),
    "checksums_odd": _with(crc32c="[]"),
}


def _sealed(block: bytes) -> bytes:
    return block + b"\0" + struct.pack("<I", masked_crc(block + b"\0"))


def _table(blocks: list[bytes]) -> bytes:
    """A table of blocks of entries, in the order of the keys b"a", b"b", ..."""
    out, handles = b"", b""
    for number, entries in enumerate(blocks):
        block = entries + struct.pack("<II", 0, 1)
        handle = varint(len(out)) + varint(len(block))
        handles += b"\0\x01" + varint(len(handle)) + bytes([97 + number]) + handle
        out += _sealed(block)
    index = handles + struct.pack("<II", 0, 1)
    footer = b"\0\0" + varint(len(out)) + varint(len(index))
    end = bytes.fromhex("57fb808b247547db")
    return out + _sealed(index) + footer.ljust(40, b"\0") + end


def _repeated(length: int, times: int) -> bytes:
    """Entries whose keys share all but one byte: 4 bytes in the file, `length` in memory."""
    first = b"\0" + varint(length) + b"\0" + b"k" * length
    return first + b"".join(
        varint(length + i) + b"\x01\0" + bytes([97 + i % 26]) for i in range(times)
    )


def _variable(*, shape: tuple[int, ...], offset: int, size: int) -> bytes:
    dimensions = b"".join(
        b"\x12" + varint(len(one)) + one for one in (b"\x08" + varint(side) for side in shape)
    )
    return (
        b"\x08\x01" + b"\x12" + varint(len(dimensions)) + dimensions
        + b"\x20" + varint(offset) + b"\x28" + varint(size) + b"\x35" + bytes(4)
    )  # fmt: skip


HEADER = (b"", b"\x08\x01\x1a\x02\x08\x01")
INDICES = {
    "keys_that_unfold": _table([_repeated(300_000, 60_000)]),
    "gigabytes_of_a_variable": write_table(
        [HEADER, (b"a", _variable(shape=(2**30,), offset=0, size=2**32))]
    ),
    "numbers_beyond_64_bits": write_table(
        [HEADER, (b"a", _variable(shape=(2**69, 2**69), offset=2**69, size=2**69))]
    ),
    "a_size_that_is_another": write_table(
        [HEADER, (b"a", _variable(shape=(2,), offset=0, size=2**40))]
    ),
    "handles_outside": (b"\0\0" + varint(2**69) + varint(2**69)).ljust(40, b"\0")
    + bytes.fromhex("57fb808b247547db"),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What a process with little memory says of all of them, by name."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, content in HEADERS.items():
        (folder / f"{name}.safetensors").write_bytes(content)
    for name, content in INDICES.items():
        (folder / f"{name}.index").write_bytes(content)
        (folder / f"{name}.data-00000-of-00001").write_bytes(bytes(64))
    with (folder / "long.index").open("wb") as file:
        file.truncate(1 << 40)  # a sparse file
    paths = [*folder.glob("*.safetensors"), *folder.glob("*.index")]
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.support.bounded_reader",
            str(ADDRESSES),
            *map(str, sorted(paths)),
        ],
        cwd=ROOT,
        env=inherited_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    return {Path(row["path"]).stem: row for row in rows}


@pytest.mark.parametrize("name", HEADERS)
def test_a_hostile_safetensors_file_ends_in_one_line(found, name):
    row = found[name]
    assert row["kind"] == "WeightsFileError", row
    assert f"{name}.safetensors" in row["message"]
    assert "\n" not in row["message"]
    assert len(row["message"]) < 600


@pytest.mark.parametrize("name", [*INDICES, "long"])
def test_a_hostile_index_ends_in_one_line(found, name):
    row = found[name]
    assert row["kind"] == "ConvertError", row
    assert f"{name}." in row["message"]
    assert "\n" not in row["message"]


def test_memory_is_bounded(found):
    assert max(row["grown"] for row in found.values()) < MEGABYTES
