# SPDX-License-Identifier: BSD-3-Clause
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from mlimages_jax.convert import ConvertError
from mlimages_jax.convert.to_stablehlo import to_stablehlo
from mlimages_jax.convert.weights import flat, write_workdir

BLOCKED = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("mlimages_jax", "flax", "orbax", "optax"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import numpy as np
images = np.load("images.npy")
"""
SAVE = """
np.savez("outputs.npz", logits=logits, features=features)
for count in (1, 3):
    part = jax.jit(network.call)(weights, images[:count])
    np.testing.assert_allclose(part[0], logits[:count], atol=1e-6)
"""


def _lines(folder) -> str:
    """The program in the README: the five lines that are set in."""
    lines = (folder / "README.md").read_text().splitlines()
    return "\n".join(line.strip() for line in lines[4:9])


@pytest.mark.slow
def test_the_lines_of_the_readme_run_it_without_this_package(workdir, predictions, tmp_path):
    images, logits, features = predictions
    to_stablehlo(checkpoint=workdir, output=tmp_path / "x")
    np.save(tmp_path / "x" / "images.npy", images)
    program = BLOCKED + _lines(tmp_path / "x") + SAVE
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path / "x", check=True)
    outputs = np.load(tmp_path / "x" / "outputs.npz")
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-6)
    np.testing.assert_allclose(outputs["features"], features, atol=1e-6)


def test_weights_lie_beside_the_program(workdir, weights, tmp_path):
    to_stablehlo(checkpoint=workdir, output=tmp_path / "x", image_size=16, platforms=("cpu",))
    arrays = np.load(tmp_path / "x" / "weights.npz")
    kernel = weights["params"]["stage1_block0"]["shortcut_conv"]["kernel"]
    np.testing.assert_array_equal(arrays["params/stage1_block0/shortcut_conv/kernel"], kernel)
    network = jax.export.deserialize(bytearray((tmp_path / "x" / "network.jaxexport").read_bytes()))
    assert network.platforms == ("cpu",)
    assert len(network.in_avals) == len(arrays.files) + 1
    assert str(network.in_avals[-1]) == "float32[batch,16,16,3]"
    assert [str(aval) for aval in network.out_avals] == ["float32[batch,5]", "float32[batch,16]"]
    text = (tmp_path / "x" / "README.md").read_text()
    assert "Trained for 11 steps." in text
    assert re.search(r"images +float32 \[B, 16, 16, 3\], RGB", text)
    assert "Probability of a class: 1 / (1 + 4 exp(-logit))" in text


def test_it_runs_on_all_platforms(workdir, tmp_path):
    to_stablehlo(checkpoint=workdir, output=tmp_path / "x")
    data = (tmp_path / "x" / "network.jaxexport").read_bytes()
    network = jax.export.deserialize(bytearray(data))
    assert set(network.platforms) == {"cpu", "cuda", "rocm", "tpu"}


@pytest.mark.slow
def test_the_image_size_must_be_known(weights, tmp_path):
    write_workdir(tmp_path / "w", flat(weights), step=0, config={})
    with pytest.raises(ConvertError, match="does not say its image size: give --image-size"):
        to_stablehlo(checkpoint=tmp_path / "w", output=tmp_path / "x")
    with pytest.raises(ConvertError, match="already exists"):
        to_stablehlo(checkpoint=tmp_path / "w", output=tmp_path / "w", image_size=16)
