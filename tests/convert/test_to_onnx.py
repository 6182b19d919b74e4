# SPDX-License-Identifier: BSD-3-Clause
import json
import sys

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from mlimages_jax.convert import ConvertError, to_onnx
from mlimages_jax.convert.__main__ import main
from mlimages_jax.convert.from_tensorflow import from_tensorflow
from mlimages_jax.convert.onnx_graph import OPSET, Graph
from mlimages_jax.convert.onnx_preprocessing import add_preprocessing
from mlimages_jax.convert.tensorflow_checkpoint import write_checkpoint
from mlimages_jax.convert.weights import flat, write_workdir
from mlimages_jax.data.images.views import EvaluationView
from mlimages_jax.labels.hierarchy import HEADER
from mlimages_jax.metrics.calibration import calibrated_probability
from tests.support import reference

EXPORT = to_onnx.to_onnx


def _run(model, images):
    """Outputs by name; `model` is a path or the bytes of a model."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": images}), strict=True))


def _channels_first(images):
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


@pytest.fixture
def photographs(tmp_path):
    """A folder of smooth images of two sizes."""
    draw = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(4):
        small = draw.integers(0, 256, (5, 6, 3), np.uint8)
        image = cv2.resize(small, (40 + 10 * i, 48), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), image)
    return tmp_path / "images"


def test_onnxruntime_computes_the_same_for_any_batch(workdir, predictions, tmp_path):
    images, logits, features = predictions
    EXPORT(checkpoint=str(workdir), output=tmp_path / "new" / "m.onnx")
    model = onnx.load(tmp_path / "new" / "m.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    for count in (5, 1, 3):
        outputs = _run(tmp_path / "new" / "m.onnx", _channels_first(images[:count]))
        np.testing.assert_allclose(outputs["logits"], logits[:count], atol=1e-4)
        np.testing.assert_allclose(outputs["features"], features[:count], atol=1e-4)
        expected = calibrated_probability(logits[:count], positive_weight=4.0)
        np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["resnet50_c1000_64_seed0", "resnet50_c1000_299_seed0", "resnet101_c11166_224_seed0"],
)
def test_onnxruntime_computes_what_the_original_computes(golden_dir, tmp_path, name):
    numbers = np.load(golden_dir / f"forward_{name}.npz")
    size, classes = int(numbers["resnet_size"]), int(numbers["class_num"])
    value = reference.detweights(golden_dir).det_value
    names = reference.variable_names(golden_dir, size, classes)
    write_checkpoint(tmp_path / "tf" / "m", {name: value(name, shape) for name, shape in names})
    from_tensorflow(checkpoint=tmp_path / "tf", output=str(tmp_path / "w"))
    shape = tuple(int(numbers[key]) for key in ("seed", "n", "height", "width"))
    EXPORT(checkpoint=str(tmp_path / "w"), output=tmp_path / "m.onnx", image_size=shape[2])
    images = _channels_first(reference.input_images(*shape))
    outputs = _run(tmp_path / "m.onnx", images)
    shown = numbers["logits"]
    np.testing.assert_allclose(outputs["features"], numbers["feat"], atol=1e-4)
    np.testing.assert_allclose(outputs["logits"][:, : shown.shape[1]], shown, atol=1e-4)


def test_float16_keeps_the_order_of_classes(workdir, predictions, tmp_path):
    images, logits, _ = predictions
    EXPORT(checkpoint=str(workdir), output=tmp_path / "m.onnx", dtype="float16")
    stored = {tensor.name: tensor for tensor in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert stored["stem/kernel"].data_type == TensorProto.FLOAT16
    assert stored["head/kernel"].data_type == TensorProto.FLOAT
    outputs = _run(tmp_path / "m.onnx", _channels_first(images))
    assert outputs["logits"].dtype == np.float32
    np.testing.assert_allclose(outputs["logits"], logits, atol=0.02 * np.ptp(logits))
    assert (outputs["logits"].argmax(-1) == logits.argmax(-1)).all()


def test_int8_weights_are_calibrated_on_images(workdir, photographs, tmp_path, capsys):
    (photographs / "broken.png").write_bytes(b"no image")
    EXPORT(checkpoint=str(workdir), output=tmp_path / "f.onnx", uint8_input=True)
    EXPORT(
        checkpoint=str(workdir),
        output=tmp_path / "m.onnx",
        dtype="int8",
        uint8_input=True,
        calibration_images=str(photographs),
    )
    assert "calibrated with 4 images" in capsys.readouterr().out
    model = onnx.load(tmp_path / "m.onnx")
    int8 = [one for one in model.graph.initializer if one.data_type == TensorProto.INT8]
    assert len([one for one in int8 if one.dims[-1:] == [3]]) == 4  # 3 x 3 kernels and the stem's
    kept, all_of_them = (
        sum(node.op_type == "Relu" for node in one.graph.node)
        for one in (model, onnx.load(tmp_path / "f.onnx"))
    )
    assert all_of_them - kept == 6  # two in each of three blocks follow a convolution
    image = cv2.imread(str(photographs / "1.png"))[None, :, :, ::-1].copy()
    ours, exact = (_run(tmp_path / name, image)["logits"] for name in ("m.onnx", "f.onnx"))
    assert 0 < np.abs(ours - exact).max() < 0.1 * np.ptp(exact)
    assert json.loads(_metadata(tmp_path / "m.onnx")["weights"]) == "int8"


def test_int8_of_a_float_input_is_calibrated_with_the_view(workdir, photographs, tmp_path):
    arguments = {"dtype": "int8", "calibration_images": str(photographs), "view": "ten_crop"}
    EXPORT(checkpoint=str(workdir), output=tmp_path / "m.onnx", calibration_count=2, **arguments)
    images = np.zeros((2, 3, 24, 24), np.float32)
    assert _run(tmp_path / "m.onnx", images)["logits"].shape == (2, 5)


@pytest.mark.parametrize("shape", [(64, 40), (35, 90), (48, 48), (20, 17), (301, 157)])
@pytest.mark.parametrize("view", ["central", "short_side", "whole"])
def test_the_preprocessing_is_that_of_the_package(view, shape):
    size = 24
    draw = np.random.default_rng(1)
    image = draw.integers(0, 256, (2, *shape, 3), np.uint8)
    graph = Graph()
    result = add_preprocessing(graph, "images", view=view, size=size)
    given = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", "h", "w", 3])
    made = helper.make_tensor_value_info(result, TensorProto.FLOAT, ["n", 3, size, size])
    model = graph.model([given], [made], {})
    found = _run(model.SerializeToString(), image)[result]
    crop = EvaluationView(size, view).crop
    expected = _channels_first(np.stack([crop(one) for one in image]))
    if expected.dtype == np.uint8:
        levels = np.abs(np.rint((found + 1) * 127.5) - expected)
        assert levels.max() <= 1
        assert (levels > 0).mean() < 0.14  # an eighth, of OpenCV's integers
        np.testing.assert_allclose(found, np.rint((found + 1) * 127.5) / 127.5 - 1, atol=1e-6)
    else:
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_uint8_images_give_the_same_tags(workdir, photographs, tmp_path):
    EXPORT(checkpoint=str(workdir), output=tmp_path / "u.onnx", uint8_input=True, view="central")
    EXPORT(checkpoint=str(workdir), output=tmp_path / "f.onnx")
    image = cv2.imread(str(photographs / "3.png"))
    view = EvaluationView(24, "central").crop(image)
    ours = _run(tmp_path / "u.onnx", image[None])
    other = _run(tmp_path / "f.onnx", _channels_first(view[None]))
    for name in ("logits", "features", "probabilities"):
        np.testing.assert_allclose(ours[name], other[name], atol=1e-4)
    assert json.loads(_metadata(tmp_path / "u.onnx")["input"]) == {
        "dtype": "uint8",
        "layout": "NHWC",
        "preprocessing_inside": ["crop", "resize", "range", "layout"],
    }


def _metadata(path):
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("softmax", lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
        ("focal", lambda x: 1 / (1 + np.exp(-x))),
        ("two_way", None),
    ],
)
def test_metadata_and_probabilities_follow_the_training(weights, tmp_path, loss, expected):
    names = "".join(f"{i}\tn{i}\t-1\tnäme {'abcde'[i]}\n" for i in range(5))
    write_workdir(
        tmp_path / "w",
        flat(weights),
        step=11,
        config={"loss": {"name": loss}, "evaluation": {"views": ["whole"]}},
        class_list=f"{HEADER}\n{names}",
    )
    EXPORT(checkpoint=str(tmp_path / "w"), output=tmp_path / "m.onnx", image_size=16)
    found = {key: json.loads(value) for key, value in _metadata(tmp_path / "m.onnx").items()}
    assert found["classes"][2] == {"id": "n2", "name": "näme c", "parent": None}
    assert (found["step"], found["image_size"], found["thresholds"]) == (11, 16, None)
    assert found["calibration"]["loss"] == loss
    assert found["preprocessing"]["crop"] == "whole"
    assert found["input"]["layout"] == "NCHW"
    outputs = _run(tmp_path / "m.onnx", np.zeros((1, 3, 16, 16), np.float32))
    if expected:
        probabilities = expected(outputs["logits"].astype(np.float64))
        np.testing.assert_allclose(outputs["probabilities"], probabilities, atol=1e-5)
    else:
        assert list(outputs) == ["logits", "features"]


def _error(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main(["to-onnx", *words])
    message = str(end.value.code)
    assert message.startswith("error: ")
    assert "\n" not in message
    return message


def test_errors_are_one_line(workdir, photographs, tmp_path, capsys):
    output = f"--output={tmp_path / 'm.onnx'}"
    model = f"--checkpoint={workdir}"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "empty" in _error(capsys, f"--checkpoint={empty}", output)
    assert "must end in .onnx" in _error(capsys, model, f"--output={tmp_path / 'm'}")
    assert "give --calibration-images" in _error(capsys, model, output, "--dtype=int8")
    images = f"--calibration-images={photographs}"
    assert "omit it" in _error(capsys, model, output, images)
    words = (model, output, images, "--dtype=int8", "--calibration-count=0")
    assert "give at least 1" in _error(capsys, *words)
    missing = f"--calibration-images={tmp_path / 'none'}"
    assert "does not exist" in _error(capsys, model, output, "--dtype=int8", missing)
    words = (model, output, "--uint8-input", "--view=ten_crop")
    assert "give --view=short_side" in _error(capsys, *words)
    (tmp_path / "file").write_text("")
    words = (model, f"--output={tmp_path / 'file' / 'm.onnx'}")
    assert "file" in _error(capsys, *words)
    (tmp_path / "m.onnx").write_text("kept")
    assert "already exists" in _error(capsys, model, output)
    assert (tmp_path / "m.onnx").read_text() == "kept"


def test_without_a_readable_image_nothing_is_calibrated(workdir, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    arguments = {"dtype": "int8", "calibration_images": str(tmp_path / "images")}
    with pytest.raises(ConvertError, match="not one image can be read"):
        EXPORT(checkpoint=str(workdir), output=tmp_path / "m.onnx", **arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_a_network_for_two_files_is_refused(workdir, tmp_path, monkeypatch):
    monkeypatch.setattr("mlimages_jax.convert.onnx_graph.MAX_BYTES", 1000)
    with pytest.raises(ConvertError, match="one ONNX file holds 1,000: give --dtype=float16"):
        EXPORT(checkpoint=str(workdir), output=tmp_path / "m.onnx")


@pytest.mark.parametrize("module", ["onnx", "onnxruntime"])
def test_a_missing_extra_is_named(workdir, tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConvertError, match=rf"{module}.*pip install 'mlimages_jax\[onnx\]'"):
        EXPORT(checkpoint=str(workdir), output=tmp_path / "m.onnx", dtype="int8")


def test_the_image_size_must_be_known(weights, tmp_path):
    write_workdir(tmp_path / "w", flat(weights), step=0, config={})
    with pytest.raises(ConvertError, match="does not say its image size: give --image-size"):
        EXPORT(checkpoint=str(tmp_path / "w"), output=tmp_path / "m.onnx")
