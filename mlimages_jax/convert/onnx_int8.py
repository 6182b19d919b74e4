# SPDX-License-Identifier: BSD-3-Clause
"""Static quantisation to int8, with the ranges of activations found on calibration images."""

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime import quantization

from mlimages_jax.convert import ConvertError
from mlimages_jax.data.images.header import BadImage
from mlimages_jax.inference.image_source import ImageSource


class CalibrationImages(quantization.CalibrationDataReader):
    """Images spread evenly over a source, one batch each; images that cannot be read are skipped.

    Args:
        source: The images.
        count: How many to use at most.
        batch_of: Turns the bytes of an image file into an input of the network, or raises BadImage.

    Attributes:
        used: Number of images that were used so far.
    """

    def __init__(self, source: ImageSource, *, count: int, batch_of: Callable[[bytes], np.ndarray]):
        positions = np.linspace(0, len(source) - 1, min(count, len(source)))
        self._positions = iter(positions.astype(int).tolist())
        self._source = source
        self._batch_of = batch_of
        self.used = 0

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Returns the next batch by the name of its input; None at the end."""
        for position in self._positions:
            try:
                batch = self._batch_of(self._source.read(position))
            except BadImage:
                continue
            self.used += 1
            return {"images": batch}
        return None


def quantised(model: onnx.ModelProto, images: CalibrationImages) -> onnx.ModelProto:
    """Quantises the convolutions: int8 weights with a scale for each channel, uint8 activations.

    Additions, BatchNorms and the classifier stay in float32: they take little time and lose most.

    Args:
        model: The float32 network.
        images: Images like those that the network will see.

    Raises:
        ConvertError: If no image can be read.
    """
    settings: dict[str, Any] = {
        # With ReLU, one that follows a convolution becomes part of its range.
        "op_types_to_quantize": ["Conv", "Relu"],
        "per_channel": True,
        "activation_type": quantization.QuantType.QUInt8,
        "weight_type": quantization.QuantType.QInt8,
    }
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        onnx.save(onnx.shape_inference.infer_shapes(model), before)
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # it advises optimisations that the graph has already
        try:
            quantization.quantize_static(before, after, images, **settings)
        except ValueError as error:  # "No data is collected": without an image there is no range
            if images.used:
                raise
            raise ConvertError("--calibration-images: not one image can be read") from error
        finally:
            root.setLevel(level)
        return onnx.load(after)
