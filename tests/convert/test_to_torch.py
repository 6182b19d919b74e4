# SPDX-License-Identifier: BSD-3-Clause
import ast
import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from mlimages_jax.checkpoints import safetensors
from mlimages_jax.convert import ConvertError
from mlimages_jax.convert.from_tensorflow import from_tensorflow
from mlimages_jax.convert.safetensors_file import to_safetensors
from mlimages_jax.convert.tensorflow_checkpoint import write_checkpoint
from mlimages_jax.convert.to_stablehlo import to_stablehlo
from mlimages_jax.convert.to_torch import to_torch
from mlimages_jax.convert.weights import flat, write_workdir
from mlimages_jax.labels.hierarchy import HEADER
from tests.support import original_checkpoint, reference

# Runs beside the exported files, in a process that knows nothing of this package.
PREDICT = """
import sys, numpy as np, torch
assert not any(name.startswith(("mlimages", "jax")) for name in sys.modules)
import resnet
model = resnet.load(".")
assert not model.training
images = torch.from_numpy(np.load("images.npy").transpose(0, 3, 1, 2).copy())
with torch.no_grad():
    logits, features = model(images)
np.savez("outputs.npz", logits=logits.numpy(), features=features.numpy())
state = model.state_dict()
assert all(state[name].dtype == torch.float32 for name in state if "num_batches" not in name)
norm = model.final_norm
assert (norm.eps, norm.momentum, norm.track_running_stats) == (1e-5, 0.003, True)
"""


def _predict(folder, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pytest.importorskip("torch")
    np.save(folder / "images.npy", images)
    subprocess.run([sys.executable, "-c", PREDICT], cwd=folder, check=True)
    outputs = np.load(folder / "outputs.npz")
    return outputs["logits"], outputs["features"]


def test_names_and_layout_are_those_of_torch(workdir, weights, tmp_path):
    to_torch(checkpoint=workdir, output=tmp_path / "t")
    state = load_file(tmp_path / "t" / "weights.safetensors")
    block, statistics = weights["params"]["stage1_block0"], weights["batch_stats"]["stage1_block0"]
    kernel = block["conv2"]["kernel"]  # [H, W, in, out]
    ours = state["stage1_block0.conv2.weight"]
    assert ours.shape == (4, 4, 3, 3)
    for row, column, before, after in ((0, 1, 2, 3), (2, 0, 1, 0)):
        assert ours[after, before, row, column] == kernel[row, column, before, after]
    np.testing.assert_array_equal(state["head.weight"], weights["params"]["head"]["kernel"].T)
    np.testing.assert_array_equal(state["head.bias"], weights["params"]["head"]["bias"])
    for name, array in (
        ("weight", block["norm3"]["scale"]),
        ("bias", block["norm3"]["bias"]),
        ("running_mean", statistics["norm3"]["mean"]),
        ("running_var", statistics["norm3"]["var"]),
    ):
        np.testing.assert_array_equal(state[f"stage1_block0.norm3.{name}"], array)
    assert state["stage1_block0.norm3.num_batches_tracked"].dtype == np.int64
    norms = sum(name.endswith("running_var") for name in state)
    assert len(state) == len(original_checkpoint.network()) + norms


def test_the_config_rebuilds_the_network(workdir, tmp_path):
    to_torch(checkpoint=workdir, output=tmp_path / "t")
    config = json.loads((tmp_path / "t" / "config.json").read_text())
    assert config["architecture"] == {
        "num_classes": 5,
        "stage_sizes": [1, 2],
        "stage_widths": [8, 16],
        "stem_width": 4,
        "stem_kernel": 3,
    }
    assert (config["step"], config["image_size"]) == (11, 24)
    assert config["probability"].startswith("1 / (1 + 4 exp(-logit))")
    with pytest.raises(ConvertError, match="already exists"):
        to_torch(checkpoint=workdir, output=tmp_path / "t")


@pytest.mark.parametrize("timm", [False, True])
def test_the_module_needs_nothing_of_ours(workdir, tmp_path, timm):
    to_torch(checkpoint=workdir, output=tmp_path / "t", timm=timm)
    imported = set()
    for node in ast.walk(ast.parse((tmp_path / "t" / "resnet.py").read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"torch", "safetensors"}


def test_torch_computes_the_same(workdir, predictions, tmp_path):
    images, logits, features = predictions
    to_torch(checkpoint=workdir, output=tmp_path / "t")
    ours = _predict(tmp_path / "t", images)
    np.testing.assert_allclose(ours[0], logits, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(ours[1], features, atol=1e-5, rtol=1e-5)
    odd = _predict(tmp_path / "t", images[:, :23, :21])
    assert np.abs(odd[0]).sum() > 0


@pytest.mark.parametrize(
    "name",
    [
        "resnet50_c1000_64_seed0",
        pytest.param("resnet50_c1000_299_seed0", marks=pytest.mark.slow),
        pytest.param("resnet101_c11166_224_seed0", marks=pytest.mark.slow),
    ],
)
def test_torch_computes_what_the_original_computes(golden_dir, tmp_path, name):
    pytest.importorskip("torch")
    numbers = np.load(golden_dir / f"forward_{name}.npz")
    size, classes = int(numbers["resnet_size"]), int(numbers["class_num"])
    value = reference.detweights(golden_dir).det_value
    names = reference.variable_names(golden_dir, size, classes)
    write_checkpoint(tmp_path / "tf" / "m", {name: value(name, shape) for name, shape in names})
    from_tensorflow(checkpoint=tmp_path / "tf", output=tmp_path / "w")
    to_torch(checkpoint=tmp_path / "w", output=tmp_path / "t")
    shape = (int(numbers[key]) for key in ("seed", "n", "height", "width"))
    logits, features = _predict(tmp_path / "t", reference.input_images(*shape))
    shown = numbers["logits"]
    np.testing.assert_allclose(features, numbers["feat"], atol=1e-4)
    np.testing.assert_allclose(logits[:, : shown.shape[1]], shown, atol=3e-5)


def test_a_kernel_of_even_size_is_refused(tmp_path):
    variables = original_checkpoint.values(original_checkpoint.network())
    variables["init/init_conv/conv2d/kernel"] = np.ones((4, 4, 3, 4), np.float32)
    write_checkpoint(tmp_path / "tf" / "m", variables)
    from_tensorflow(checkpoint=tmp_path / "tf", output=tmp_path / "w")
    with pytest.raises(ConvertError, match="the first kernel has 4 pixels"):
        to_torch(checkpoint=tmp_path / "w", output=tmp_path / "t")
    assert not (tmp_path / "t").exists()


@pytest.mark.slow
def test_what_a_user_of_the_module_must_know_travels_with_it(weights, tmp_path):
    """The size at the end of a resize schedule, crop, levels, calibration and classes."""
    config = {
        "loss": {"name": "weighted", "weighted": {"positive_weight": 4.0}},
        "image_size": 24,
        "resize": [[5, 48, 8]],
        "evaluation": {"protocols": ["whole"], "sizes": []},
        "orientation": "stored",
    }
    names = "".join(f"{i}\tn{i}\t-1\tname {'abcde'[i]}\n" for i in range(5))
    write_workdir(
        tmp_path / "w", flat(weights), step=11, config=config, class_list=f"{HEADER}\n{names}"
    )
    to_torch(checkpoint=str(tmp_path / "w"), output=tmp_path / "t")
    to_stablehlo(checkpoint=str(tmp_path / "w"), output=tmp_path / "s", platforms=("cpu",))
    to_safetensors(checkpoint=str(tmp_path / "w"), output=tmp_path / "f.safetensors")
    found = [json.loads((tmp_path / name / "config.json").read_text()) for name in "ts"]
    for values in (*found, safetensors.read(tmp_path / "f.safetensors").usage):
        assert (values["image_size"], values["step"]) == (48, 11)
        assert values["calibration"] == {"loss": "weighted", "positive_weight": 4.0}
        assert values["classes"][2] == {"id": "n2", "name": "name c", "parent": None}
        steps = values["preprocessing"]
        assert (steps["crop"], steps["orientation"], steps["channels"]) == (
            "whole",
            "stored",
            "RGB",
        )
        assert steps["crop_in_words"] == "the full image resized to 48 x 48, area interpolation"
        assert steps["mean"] == steps["scale"] == [127.5] * 3
    readme = (tmp_path / "s/README.md").read_text()
    for text in (
        "[B, 48, 48, 3]",
        "the full image resized to 48 x 48",
        "1 + 4 exp(-logit)",
        "Classes: 5",
    ):
        assert text in readme
