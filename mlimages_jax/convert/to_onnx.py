# SPDX-License-Identifier: BSD-3-Clause
"""`to-onnx`: the network as one ONNX file, with what its users must know in the metadata."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from mlimages_jax.checkpoints import saved_model
from mlimages_jax.checkpoints.saved_model import SavedModel
from mlimages_jax.convert import ConvertError, layout
from mlimages_jax.convert.description import description
from mlimages_jax.convert.weights import check_new_file, image_size_of, read_weights
from mlimages_jax.data.images.decode import decode
from mlimages_jax.data.images.views import EvaluationView, ViewName
from mlimages_jax.files.atomic import complete_file
from mlimages_jax.inference import image_source

if TYPE_CHECKING:  # the extra is imported where it is used
    import onnx

    from mlimages_jax.convert.onnx_graph import Graph

Dtype = Literal["float32", "float16", "int8"]
SUFFIX = ".onnx"


class Form(NamedTuple):
    """The form of an exported network.

    Attributes:
        dtype: Dtype of the convolutions.
        uint8_input: Whether the graph crops, resizes and normalises uint8 images itself.
        view: How images are resized and cropped.
        size: Side of the images in pixels.
    """

    dtype: Dtype
    uint8_input: bool
    view: ViewName
    size: int


def to_onnx(
    *,
    checkpoint: str,
    output: Path,
    dtype: Dtype = "float32",
    uint8_input: bool = False,
    view: ViewName | None = None,
    image_size: int | None = None,
    calibration_images: str | None = None,
    calibration_split: str | None = None,
    calibration_count: int = 256,
) -> None:
    """Write the network as ONNX, for any batch size.

        mlimages convert to-onnx --checkpoint=workdirs/quickstart --output=tagger.onnx --uint8-input

    With --uint8-input the file takes decoded images, uint8 [N, H, W, 3], RGB, of any size, and
    crops, resizes and normalises them as the training's evaluation did; only the EXIF orientation
    is left to the caller. Without, it takes float32 [N, 3, S, S] in [-1, 1]. Outputs are logits,
    features and calibrated probabilities. The metadata contains, as JSON, the classes, thresholds,
    calibration and preprocessing. Needs `pip install 'mlimages_jax[onnx]'`.

    Args:
        checkpoint: a workdir, its checkpoints folder, or one of its steps.
        output: the new file, whose name ends in .onnx.
        dtype: float16 halves the file; int8 makes it a third, and needs calibration images.
        uint8_input: take uint8 images of any size, and do all preprocessing in the graph.
        view: how images are resized and cropped; default: as the training evaluated.
        image_size: side of the images in pixels; default: that of the training.
        calibration_images: for int8: a folder or list of images like those to be tagged, or a
            built data set.
        calibration_split: split of the data set.
        calibration_count: number of these images to use; they are spread evenly.
    """
    _check_extra("onnx")
    check_new_file(output, suffix=SUFFIX)
    if dtype == "int8":
        _check_extra("onnxruntime")
        if not calibration_images:
            raise ConvertError(
                "--dtype=int8 needs the range of every activation: give --calibration-images, a "
                "folder with some hundred images like those to be tagged"
            )
        if calibration_count < 1:
            raise ConvertError(f"--calibration-count={calibration_count}: give at least 1")
    elif calibration_images:
        raise ConvertError(f"--calibration-images is for --dtype=int8, not {dtype}: omit it")
    source = None
    if calibration_images:
        source = image_source.open_images(calibration_images, split=calibration_split)
    saved, arrays = read_weights(checkpoint)
    size = image_size_of(saved, image_size)
    form = Form(dtype, uint8_input, view or saved.usage().view, size)
    model = onnx_model(saved, arrays, form)
    if source:
        model = _quantised(model, source, saved, form, count=calibration_count)
    _write(output, model)
    print(
        f"{output}: the network of {saved.where}, {dtype}, opset {model.opset_import[0].version}, "
        f"for {'uint8 images of any size' if uint8_input else f'images of {size} x {size}'}"
    )


def onnx_model(saved: SavedModel, arrays: dict[str, np.ndarray], form: Form) -> "onnx.ModelProto":
    """Builds a network; for int8 in float32, still to be quantised.

    Args:
        saved: The checkpoint.
        arrays: Its arrays by the names of `layout`.
        form: The form to write.

    Raises:
        ConvertError: If the graph cannot hold the view.
    """
    from onnx import TensorProto, helper

    from mlimages_jax.convert.onnx_graph import Graph
    from mlimages_jax.convert.onnx_network import Network
    from mlimages_jax.convert.onnx_preprocessing import add_preprocessing

    architecture = layout.check(arrays, where=str(saved.where))
    graph = Graph()
    x, side = "images", form.size
    if form.uint8_input:
        images = helper.make_tensor_value_info(
            "images", TensorProto.UINT8, ["batch", "height", "width", 3]
        )
        x = add_preprocessing(graph, x, view=form.view, size=side)
    else:
        images = helper.make_tensor_value_info(
            "images", TensorProto.FLOAT, ["batch", 3, side, side]
        )
    half = form.dtype == "float16"
    logits, features = Network(graph, arrays, dtype=np.float16 if half else np.float32).add(
        x, architecture
    )
    widths = {logits: architecture.num_classes, features: architecture.stage_widths[-1]}
    if _add_probabilities(graph, logits, saved):
        widths["probabilities"] = architecture.num_classes
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
        for name, width in widths.items()
    ]
    return graph.model([images], outputs, metadata(saved, form))


def metadata(saved: SavedModel, form: Form) -> dict[str, str]:
    """Returns what users of the file must know, as JSON values by name."""
    facts = description(saved, image_size=form.size, view=form.view)
    inside = ["crop", "resize", "range", "layout"] if form.uint8_input else []
    facts["input"] = {
        "dtype": "uint8" if form.uint8_input else "float32",
        "layout": "NHWC" if form.uint8_input else "NCHW",
        "preprocessing_inside": inside,
    }
    facts["weights"] = form.dtype
    return {name: json.dumps(value, ensure_ascii=False) for name, value in facts.items()}


def _add_probabilities(graph: "Graph", logits: str, saved: SavedModel) -> bool:
    """Adds the output `probabilities`, unless the loss gives no meaning to it."""
    usage = saved.usage()
    if usage.loss == "softmax":
        graph.add("Softmax", [logits], "probabilities", axis=-1)
        return True
    if usage.loss not in ("sigmoid", "asymmetric", "focal", "weighted"):
        return False
    # 1 / (1 + w exp(-x)) is the sigmoid of x - ln w.
    shift = graph.constant("log_positive_weight", math.log(usage.positive_weight), np.float32)
    calibrated = graph.add("Sub", [logits, shift], "calibrated_logits")
    graph.add("Sigmoid", [calibrated], "probabilities")
    return True


def _quantised(
    model: "onnx.ModelProto",
    source: image_source.ImageSource,
    saved: SavedModel,
    form: Form,
    *,
    count: int,
) -> "onnx.ModelProto":
    from mlimages_jax.convert.onnx_int8 import CalibrationImages, quantised

    upright = saved_model.turns_upright(saved.config, built=source.built)
    view = EvaluationView(form.size, form.view, exif_orientation=upright)

    def batch_of(data: bytes) -> np.ndarray:
        if form.uint8_input:
            return decode(data, exif_orientation=upright)[None]
        images = view(data)
        images = images if images.dtype == np.float32 else images * np.float32(2 / 255) - 1
        return images.reshape(-1, *images.shape[-3:]).transpose(0, 3, 1, 2)

    images = CalibrationImages(source, count=count, batch_of=batch_of)
    model = quantised(model, images)
    print(f"calibrated with {images.used:,} images")
    return model


def _check_extra(module: str) -> None:
    try:
        __import__(module)
    except ImportError as error:
        raise ConvertError(
            f"{module} is not installed: pip install 'mlimages_jax[onnx]'"
        ) from error


def _write(output: Path, model: "onnx.ModelProto") -> None:
    from mlimages_jax.convert.onnx_graph import MAX_BYTES

    if model.ByteSize() > MAX_BYTES:
        raise ConvertError(
            f"the network takes {model.ByteSize():,} bytes, but one ONNX file holds {MAX_BYTES:,}: "
            "give --dtype=float16"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    with complete_file(output) as unfinished:
        unfinished.write_bytes(model.SerializeToString())
