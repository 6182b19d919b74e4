# SPDX-License-Identifier: BSD-3-Clause
import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mlimages_jax.checkpoints import manager
from mlimages_jax.convert import ConvertError
from mlimages_jax.convert.from_torch import from_torch
from mlimages_jax.convert.to_torch import to_torch
from mlimages_jax.convert.torch_names import plain_name, timm_name
from mlimages_jax.convert.weights import flat, read_weights, write_workdir
from mlimages_jax.labels.hierarchy import HEADER

NAMES = {  # of timm's resnetv2, where it has such an array
    "stem.weight": "stem.conv.weight",
    "stage1_block0.norm1.running_var": "stages.1.blocks.0.norm1.running_var",
    "stage1_block0.shortcut_norm.bias": "stages.1.blocks.0.downsample.norm.bias",
    "stage0_block0.shortcut_conv.weight": "stages.0.blocks.0.downsample.conv.weight",
    "stage3_block22.conv3.weight": "stages.3.blocks.22.conv3.weight",
    "final_norm.num_batches_tracked": "norm.num_batches_tracked",
    "head.bias": "head.fc.bias",
}
CLASSES = f"{HEADER}\n" + "".join(f"{i}\tn{i}\t-1\tname {i}\n" for i in range(5))
# Runs beside the exported files, in a process that knows nothing of this package.
USE = """
import numpy as np, torch
import resnet
from safetensors.torch import save_file
model = resnet.create_model(".")
assert model.training and model.default_cfg is model.pretrained_cfg
model.eval()
images = torch.from_numpy(np.load("images.npy").transpose(0, 3, 1, 2).copy())
with torch.no_grad():
    logits = model(images)
    maps = model.forward_features(images)
    assert maps.shape == (5, model.num_features, 3, 3), maps.shape
    features = model.forward_head(maps, pre_logits=True)
    assert torch.equal(model.forward_head(maps), logits)
    assert model.get_classifier().weight.shape == (5, 16, 1, 1)
    bare = resnet.create_model(".", num_classes=0).eval()
    assert torch.equal(bare(images), features) and bare.num_classes == 0
    assert bare.head_hidden_size == bare.num_features == 16
    unpooled = resnet.create_model(".", num_classes=0, global_pool="").eval()
    assert torch.equal(unpooled(images), maps)
np.savez("outputs.npz", logits=logits, features=features)
names = set(model.state_dict())
try:
    resnet.create_model(".", global_pool="max")
except ValueError as error:
    assert "global_pool='max'" in str(error)
else:
    raise AssertionError
model.reset_classifier(3)
assert model(images).shape == (5, 3) and model.num_classes == 3
save_file(model.state_dict(), "model.safetensors")
try:
    import timm
except ImportError:
    raise SystemExit
theirs = timm.models.resnetv2.ResNetV2(
    (1, 2), (8, 16), num_classes=5, stem_chs=8, norm_layer="batchnorm2d",
    conv_layer=timm.layers.create_conv2d,
)
extra = names ^ set(theirs.state_dict())
assert {name.split(".downsample.")[1].partition(".")[0] for name in extra} == {"norm"}, extra
from timm.data import create_transform, resolve_model_data_config
settings = resolve_model_data_config(model)
assert settings["input_size"] == (3, 24, 24) and settings["mean"] == (0.5, 0.5, 0.5)
assert settings["crop_pct"] == 0.875
"""


@pytest.fixture(scope="module")
def with_classes(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes") / "w"
    config = {"loss": {"name": "sigmoid"}, "image_size": 24}
    write_workdir(folder, flat(weights), step=11, config=config, class_list=CLASSES)
    return str(folder)


def test_names_are_those_of_timm():
    for ours, theirs in NAMES.items():
        assert timm_name(ours) == theirs
        assert plain_name(theirs) == plain_name(ours) == ours


@pytest.mark.parametrize("timm", [False, True])
def test_a_network_returns_bit_for_bit(with_classes, tmp_path, timm):
    to_torch(checkpoint=with_classes, output=tmp_path / "t", timm=timm)
    from_torch(checkpoint=tmp_path / "t", output=str(tmp_path / "w"))
    (before, old), (after, new) = read_weights(with_classes), read_weights(tmp_path / "w")
    assert list(new) == list(old)
    for name, array in old.items():
        np.testing.assert_array_equal(new[name], array)
    assert (after.step, after.class_list) == (before.step, before.class_list) == (11, CLASSES)
    assert after.config["loss"] == before.config["loss"]
    assert after.config["imported"]["format"] == "torch"


def test_timm_reads_preprocessing_and_classes(with_classes, tmp_path):
    to_torch(checkpoint=with_classes, output=tmp_path / "t", timm=True)
    config = json.loads((tmp_path / "t" / "config.json").read_text())
    settings = config["pretrained_cfg"]
    assert (settings["input_size"], settings["num_classes"]) == ([3, 24, 24], 5)
    assert (settings["crop_pct"], settings["crop_mode"]) == (0.875, "center")
    state = load_file(tmp_path / "t" / "model.safetensors")
    assert settings["first_conv"] + ".weight" in state
    assert state[settings["classifier"] + ".weight"].shape == (5, 16, 1, 1)


def test_the_module_of_timm_computes_the_same(with_classes, predictions, tmp_path):
    pytest.importorskip("torch", reason="needs PyTorch")
    images, logits, features = predictions
    to_torch(checkpoint=with_classes, output=tmp_path / "t", timm=True)
    np.save(tmp_path / "t" / "images.npy", images)
    subprocess.run([sys.executable, "-c", USE], cwd=tmp_path / "t", check=True)
    outputs = np.load(tmp_path / "t" / "outputs.npz")
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(outputs["features"], features, atol=1e-5, rtol=1e-5)
    from_torch(checkpoint=tmp_path / "t", output=str(tmp_path / "w"))  # three classes by now
    assert read_weights(tmp_path / "w")[1]["params/head/kernel"].shape == (16, 3)


def test_other_classes_leave_the_list_behind(with_classes, tmp_path, capsys):
    to_torch(checkpoint=with_classes, output=tmp_path / "t")
    state = load_file(tmp_path / "t" / "weights.safetensors")
    head = {name: state[name][:3] for name in ("head.weight", "head.bias")}
    save_file(state | head, tmp_path / "t" / "weights.safetensors")
    from_torch(checkpoint=tmp_path / "t", output=str(tmp_path / "w"))
    assert "without the class list of config.json: it names 5 classes, not 3" in (
        capsys.readouterr().out
    )
    assert read_weights(tmp_path / "w")[0].class_list == ""


def test_a_file_without_config_has_its_weights_only(workdir, tmp_path):
    to_torch(checkpoint=str(workdir), output=tmp_path / "t", timm=True)
    (tmp_path / "t" / "config.json").unlink()
    from_torch(checkpoint=tmp_path / "t" / "model.safetensors", output=str(tmp_path / "w"))
    assert set(manager.config_of(manager.resolve(tmp_path / "w"))) == {"imported"}


def test_what_is_no_network_is_refused(workdir, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConvertError, match="has neither of model"):
        from_torch(checkpoint=tmp_path / "empty", output=str(tmp_path / "w"))
    with pytest.raises(FileNotFoundError, match="none"):
        from_torch(checkpoint=tmp_path / "none.safetensors", output=str(tmp_path / "w"))
    (tmp_path / "m.pth").write_bytes(b"PK\x03\x04 a pickle")
    with pytest.raises(ConvertError, match=r"m.pth is not .*safetensors.torch.save_file"):
        from_torch(checkpoint=tmp_path / "m.pth", output=str(tmp_path / "w"))
    to_torch(checkpoint=str(workdir), output=tmp_path / "t", timm=True)
    file = tmp_path / "t" / "model.safetensors"
    state = load_file(file)
    save_file({**state, "fc_norm.weight": np.ones(3, np.float32)}, file)
    with pytest.raises(ConvertError, match="fc_norm/scale: not part of the network"):
        from_torch(checkpoint=tmp_path / "t", output=str(tmp_path / "w"))
    save_file({name: array.astype(np.float16) for name, array in state.items()}, file)
    with pytest.raises(ConvertError, match="float16"):
        from_torch(checkpoint=tmp_path / "t", output=str(tmp_path / "w"))
    save_file(state, file)
    (tmp_path / "t" / "config.json").write_text("[]")
    with pytest.raises(ConvertError, match=r"config.json is not a JSON object"):
        from_torch(checkpoint=tmp_path / "t", output=str(tmp_path / "w"))
    (tmp_path / "t" / "config.json").unlink()
    with pytest.raises(ConvertError, match="already exists"):
        from_torch(checkpoint=tmp_path / "t", output=str(workdir))
