# SPDX-License-Identifier: BSD-3-Clause
import json
import random
import struct

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import mlimages_jax
from mlimages_jax.checkpoints import manager, safetensors
from mlimages_jax.checkpoints.safetensors import WeightsFileError
from mlimages_jax.convert import ConvertError
from mlimages_jax.convert.safetensors_file import from_safetensors, to_safetensors


def test_a_file_holds_the_weights_and_what_they_mean(workdir, weights, tmp_path):
    to_safetensors(checkpoint=workdir, output=tmp_path / "a" / "x.safetensors")
    data = (tmp_path / "a" / "x.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    metadata = header.pop("__metadata__")
    assert metadata["step"] == "11"
    assert json.loads(metadata["config"])["seed"] == 3
    assert metadata["probability"].startswith("1 / (1 + 4 exp(-logit))")
    entry = header["params/stage0_block0/conv2/kernel"]
    assert (entry["dtype"], entry["shape"]) == ("F32", [3, 3, 2, 2])
    begin, end = (offset + len(data) - _data_bytes(header) for offset in entry["data_offsets"])
    kernel = weights["params"]["stage0_block0"]["conv2"]["kernel"]
    assert data[begin:end] == kernel.tobytes()
    assert len(header) == len(jax.tree.leaves(weights))


def _data_bytes(header) -> int:
    return max(entry["data_offsets"][1] for entry in header.values())


def test_there_and_back_changes_no_bit(workdir, tmp_path):
    to_safetensors(checkpoint=workdir, output=tmp_path / "x.safetensors")
    from_safetensors(checkpoint=tmp_path / "x.safetensors", output=tmp_path / "w")
    before, after = manager.load(workdir), manager.load(tmp_path / "w")
    jax.tree.map(np.testing.assert_array_equal, before, after)
    file = str(tmp_path / "x.safetensors")
    assert manager.config_of(tmp_path / "w") == {
        **manager.config_of(workdir),
        "imported": {"format": "safetensors", "file": file},
    }
    to_safetensors(checkpoint=tmp_path / "w", output=tmp_path / "y.safetensors")
    first, second = (load_file(tmp_path / f"{name}.safetensors") for name in "xy")
    assert first.keys() == second.keys()
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_a_file_of_others_needs_no_metadata(workdir, tmp_path):
    to_safetensors(checkpoint=workdir, output=tmp_path / "x.safetensors")
    save_file(load_file(tmp_path / "x.safetensors"), tmp_path / "plain")
    from_safetensors(checkpoint=tmp_path / "plain", output=tmp_path / "w")
    assert manager.load(tmp_path / "w")["step"] == 0
    assert manager.config_of(tmp_path / "w").keys() == {"imported"}


def test_the_classes_travel_with_the_weights(workdir, tmp_path):
    """And `load` takes the file as it is."""
    to_safetensors(checkpoint=workdir, output=tmp_path / "x.safetensors")
    from_safetensors(checkpoint=tmp_path / "x.safetensors", output=tmp_path / "w")
    assert not (tmp_path / "w" / "dictionary.txt").exists(), "there were none"
    classes = "0\tgreat\twhite\tshark\n" + "".join(f"{i}\tclass {i}\n" for i in range(1, 5))
    (tmp_path / "w" / "dictionary.txt").write_text(classes)
    to_safetensors(checkpoint=tmp_path / "w", output=tmp_path / "y.safetensors")
    from_safetensors(checkpoint=tmp_path / "y.safetensors", output=tmp_path / "v")
    assert (tmp_path / "v" / "dictionary.txt").read_text() == classes
    ours, theirs = (mlimages_jax.load(tmp_path / name) for name in ("w", "y.safetensors"))
    jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)
    jax.tree.map(np.testing.assert_array_equal, ours.batch_stats, theirs.batch_stats)
    assert (theirs.loss, theirs.positive_weight, theirs.image_size) == ("weighted", 4, 24)
    assert theirs.hierarchy.names[0] == "great white shark"


def test_odd_files_are_refused(workdir, tmp_path):
    to_safetensors(checkpoint=workdir, output=tmp_path / "x.safetensors")
    with pytest.raises(ConvertError, match="already exists"):
        to_safetensors(checkpoint=workdir, output=tmp_path / "x.safetensors")
    arrays = load_file(tmp_path / "x.safetensors")
    del arrays["params/head/bias"]
    save_file(arrays, tmp_path / "less")
    with pytest.raises(ConvertError, match="params/head/bias: missing"):
        from_safetensors(checkpoint=tmp_path / "less", output=tmp_path / "w")
    (tmp_path / "cut").write_bytes((tmp_path / "x.safetensors").read_bytes()[:-1])
    with pytest.raises(ConvertError, match="damaged or not a safetensors file"):
        from_safetensors(checkpoint=tmp_path / "cut", output=tmp_path / "w")
    with pytest.raises(WeightsFileError, match="is damaged"):
        mlimages_jax.load((tmp_path / "cut").rename(tmp_path / "cut.safetensors"))
    with pytest.raises(ConvertError, match="the name must end"):
        to_safetensors(checkpoint=workdir, output=tmp_path / "x.bin")
    with pytest.raises(FileNotFoundError):
        from_safetensors(checkpoint=tmp_path / "absent", output=tmp_path / "w")


def test_a_flipped_bit_of_a_file_never_loads_in_silence(workdir, tmp_path):
    path = tmp_path / "x.safetensors"
    to_safetensors(checkpoint=workdir, output=path)
    data, whole = path.read_bytes(), safetensors.read(path)
    rng = random.Random(0)
    header = 8 * (8 + struct.unpack("<Q", data[:8])[0])
    places = [rng.randrange(64, header) for _ in range(60)]
    places += [rng.randrange(header, 8 * len(data)) for _ in range(60)]
    found = 0
    for bit in places:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            read = safetensors.read(path)
        except WeightsFileError as error:
            assert str(error).startswith(f"{path} is damaged")
            found += 1
            continue
        assert read[1:] == whole[1:]  # a bit that means nothing
        jax.tree.map(np.testing.assert_array_equal, read.arrays, whole.arrays)
    assert found >= 110
    changed = bytearray(data)
    changed[-1] ^= 1
    path.write_bytes(changed)
    with pytest.raises(WeightsFileError, match=r"the array \S+ does not match its checksum"):
        safetensors.read(path)
