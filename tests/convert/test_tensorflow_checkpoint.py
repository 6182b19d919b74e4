# SPDX-License-Identifier: BSD-3-Clause
import shutil
import struct
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from mlimages_jax.convert import ConvertError
from mlimages_jax.convert.sorted_table import write_table
from mlimages_jax.convert.tensorflow_checkpoint import TensorFlowCheckpoint, write_checkpoint
from tests.support import original_checkpoint

WRITTEN = Path(__file__).with_name("written_by_tensorflow") / "model.ckpt-7"
DATA, INDEX = ".data-00000-of-00001", ".index"


def _read(prefix) -> dict[str, np.ndarray]:
    file = TensorFlowCheckpoint(prefix)
    return {name: file.read(name) for name in file.entries}


def _assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)


def _copy(folder: Path) -> Path:
    shutil.copytree(WRITTEN.parent, folder)
    return folder / WRITTEN.name


def test_files_of_tensorflow_are_read():
    _assert_same(_read(WRITTEN), original_checkpoint.of_train_py())


def test_files_are_written_as_tensorflow_writes_them(tmp_path):
    write_checkpoint(tmp_path / "new" / WRITTEN.name, original_checkpoint.of_train_py())
    for end in (DATA, INDEX):
        ours = Path(f"{tmp_path / 'new' / WRITTEN.name}{end}").read_bytes()
        assert ours == Path(f"{WRITTEN}{end}").read_bytes()
    state = (tmp_path / "new" / "checkpoint").read_text()
    assert state.splitlines()[0] == 'model_checkpoint_path: "model.ckpt-7"'


def test_what_is_written_is_read(tmp_path):
    variables = {
        "double": np.linspace(0, 1, 7),
        "empty": np.zeros((0, 3), np.float32),
        "big_endian": np.arange(6, dtype=">f4").reshape(2, 3),
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "scalar": np.array(-5, np.int32),
        "large": np.arange(300, dtype=np.int64) - 2**40,
    }
    write_checkpoint(tmp_path / "x", variables)
    found = _read(tmp_path / "x")
    assert found.keys() == variables.keys()
    for name, array in variables.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert str(TensorFlowCheckpoint(tmp_path / "x").entries["transposed"]) == "float32[3, 2]"
    with pytest.raises(ConvertError, match="already exists"):
        write_checkpoint(tmp_path / "x", variables)


@pytest.mark.parametrize("tail", ["", INDEX, DATA, ".meta"])
def test_a_checkpoint_is_named_by_its_prefix_or_any_of_its_files(tail):
    assert TensorFlowCheckpoint(f"{WRITTEN}{tail}").prefix == WRITTEN


def test_a_folder_names_its_only_or_its_latest_checkpoint(tmp_path):
    folder = _copy(tmp_path / "c").parent
    assert TensorFlowCheckpoint(folder).prefix == folder / "model.ckpt-7"
    write_checkpoint(folder / "model.ckpt-3", original_checkpoint.of_train_py())
    (folder / "checkpoint").unlink()
    with pytest.raises(ConvertError, match=r"model.ckpt-3, model.ckpt-7: name one"):
        TensorFlowCheckpoint(folder)
    # As TensorFlow leaves it, with the folder of the machine that trained.
    (folder / "checkpoint").write_text(
        'model_checkpoint_path: "/gone/model.ckpt-3"\n'
        'all_model_checkpoint_paths: "/gone/model.ckpt-7"\n'
    )
    assert TensorFlowCheckpoint(folder).prefix == folder / "model.ckpt-3"
    write_checkpoint(folder / "model.ckpt-9", original_checkpoint.of_train_py())  # leaves that file
    assert TensorFlowCheckpoint(folder).prefix == folder / "model.ckpt-3"
    with pytest.raises(ConvertError, match="contains no TensorFlow checkpoint"):
        TensorFlowCheckpoint(tmp_path)


def test_what_is_missing_or_of_the_first_format_is_said(tmp_path):
    with pytest.raises(ConvertError, match=r"model\.index does not exist: give the prefix"):
        TensorFlowCheckpoint(tmp_path / "model")
    (tmp_path / "old.ckpt").write_bytes(Path(f"{WRITTEN}{INDEX}").read_bytes())
    with pytest.raises(ConvertError, match=r"format V1"):
        TensorFlowCheckpoint(tmp_path / "old.ckpt")
    (tmp_path / "text").write_text("no checkpoint")
    with pytest.raises(ConvertError, match="does not exist"):
        TensorFlowCheckpoint(tmp_path / "text")
    prefix = _copy(tmp_path / "c")
    Path(f"{prefix}{DATA}").unlink()
    with pytest.raises(ConvertError, match="data-00000-of-00001 is missing"):
        TensorFlowCheckpoint(prefix).read("global_step")


def test_damage_is_named(tmp_path):
    prefix = _copy(tmp_path / "c")
    entry = TensorFlowCheckpoint(prefix).entries["logits/dense/bias"]
    data = bytearray(Path(f"{prefix}{DATA}").read_bytes())
    data[entry.offset + entry.size - 1] ^= 64
    Path(f"{prefix}{DATA}").write_bytes(data)
    file = TensorFlowCheckpoint(prefix)
    with pytest.raises(
        ConvertError, match="is damaged: the checksum of logits/dense/bias, 20 bytes from byte"
    ):
        file.read("logits/dense/bias")
    file.read("logits/dense/kernel")
    Path(f"{prefix}{DATA}").write_bytes(data[: entry.offset + 4])
    with pytest.raises(ConvertError, match="is damaged: the checksum of logits/dense/bias"):
        file.read("logits/dense/bias")
    index = Path(f"{prefix}{INDEX}").read_bytes()
    Path(f"{prefix}{INDEX}").write_bytes(index[:-20])
    with pytest.raises(ConvertError, match=r"ckpt-7\.index is damaged: .*copy it again"):
        TensorFlowCheckpoint(prefix)


def _entry(dtype: int, shape: bytes, *, file: int, offset: int, data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    checksum = ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32
    place = bytes([0x18, file, 0x20, offset, 0x28, len(data)])
    return bytes([0x08, dtype, 0x12, len(shape)]) + shape + place + struct.pack("<BI", 53, checksum)


def test_variables_may_lie_in_several_data_files(tmp_path):
    """Estimator saves a data file a device; unknown fields and dimension names are passed over."""
    first, second = np.float32([1, 2, 3]).tobytes(), np.float32([4, 5]).tobytes()
    table = {
        b"": b"\x08\x02\x1a\x02\x08\x01",
        b"a": _entry(1, b"\x12\x05\x08\x03\x12\x01n", file=0, offset=0, data=first),
        b"b": _entry(1, b"\x12\x02\x08\x01\x12\x02\x08\x02", file=1, offset=1, data=second),
        b"text": _entry(7, b"", file=1, offset=0, data=b"?"),
        b"part": _entry(1, b"\x12\x02\x08\x04", file=0, offset=0, data=b"") + b"\x3a\x00",
    }
    (tmp_path / "x.index").write_bytes(write_table(sorted(table.items())))
    (tmp_path / "x.data-00000-of-00002").write_bytes(first)
    (tmp_path / "x.data-00001-of-00002").write_bytes(b"?" + second)
    file = TensorFlowCheckpoint(tmp_path / "x")
    np.testing.assert_array_equal(file.read("a"), [1, 2, 3])
    np.testing.assert_array_equal(file.read("b"), [[4, 5]])
    for name in ("text", "part"):
        with pytest.raises(ConvertError, match=f"variable {name} has a type that is not supported"):
            file.read(name)
    assert str(file.entries["part"]) == "unsupported type[4]"


@pytest.mark.parametrize(
    ("header", "entry", "message"),
    [
        (b"\x08\x01\x10\x01", b"", "big-endian"),
        (b"\x0a\x00", b"", "a message instead of an integer"),
        (b"\x08\x01", b"\x10\x01", "an integer instead of a message"),
        (b"\x08\x01", b"\x09" + bytes(8), "a field of kind 1"),
        (b"\x08\x01", b"\x12\x05\x00", "ends outside"),
        (b"\x08\x01", b"\x35\x00", "is damaged"),
        (b"\x08", b"", "is damaged"),
    ],
)
def test_an_odd_index_is_refused(tmp_path, header, entry, message):
    (tmp_path / "x.index").write_bytes(write_table([(b"", header), (b"a", entry)]))
    with pytest.raises(ConvertError, match=message):
        TensorFlowCheckpoint(tmp_path / "x")


def test_tensorflow_reads_what_is_written_here(tmp_path):
    tf = pytest.importorskip("tensorflow")
    variables = original_checkpoint.of_train_py()
    write_checkpoint(tmp_path / "model.ckpt-7", variables)
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(tmp_path)))
    found = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    assert found.keys() == variables.keys()
    for name, array in variables.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_what_tensorflow_writes_is_read_here(tmp_path):
    """Two data files, names long and short, an index of several blocks."""
    tf = pytest.importorskip("tensorflow")
    draws = np.random.default_rng(0)
    variables = {
        f"{'scope/' * (i % 40)}v{i:05}": draws.normal(size=i % 9).astype(np.float32)
        for i in range(12_000)
    }
    parts = [dict(list(variables.items())[i::2]) for i in range(2)]
    for number, part in enumerate(parts):
        original_checkpoint.write_with_tensorflow(str(tmp_path / f"part{number}"), part)
    prefixes = [str(tmp_path / f"part{number}") for number in range(2)]
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=prefixes, destination_prefix=str(tmp_path / "whole")
    )
    assert (tmp_path / "whole.data-00001-of-00002").exists()
    assert (tmp_path / "whole.index").stat().st_size > 300_000
    _assert_same(_read(tmp_path / "whole"), variables)
