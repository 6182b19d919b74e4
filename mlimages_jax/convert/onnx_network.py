# SPDX-License-Identifier: BSD-3-Clause
"""The operators of a network, as `models.resnet` computes it without training."""

from typing import Any

import numpy as np

from mlimages_jax.convert.layout import Architecture
from mlimages_jax.convert.onnx_graph import Graph
from mlimages_jax.models.batch_norm import GroupBatchNorm

Arrays = dict[str, np.ndarray]


class Network:
    """Adds a network to a graph.

    A BatchNorm behind a convolution becomes part of its kernel and a bias, computed in float64; in
    front of one it stays an operator, with the statistics computed into its scale and bias, so that
    small variances survive float16.

    Args:
        graph: The graph to extend.
        arrays: float32 arrays by the names of `layout`.
        dtype: Dtype of the convolutions; pooling and classifier are always float32.
    """

    def __init__(self, graph: Graph, arrays: Arrays, *, dtype: Any):
        self._graph = graph
        self._arrays = arrays
        self._dtype = np.dtype(dtype)

    def add(self, images: str, architecture: Architecture) -> tuple[str, str]:
        """Adds all layers.

        Args:
            images: Name of the input, float32 [N, 3, S, S] in [-1, 1].
            architecture: The architecture of the arrays.

        Returns:
            Names of the logits, float32 [N, classes], and of the features, float32 [N, width].
        """
        graph = self._graph
        x = images
        if self._dtype != np.float32:
            x = graph.cast(x, self._dtype, "half_images")
        x = self._convolution(x, "stem", stride=2)
        for stage, blocks in enumerate(architecture.stage_sizes):
            for block in range(blocks):
                x = self._block(x, f"stage{stage}_block{block}", first=block == 0)
        x = self._norm_relu(x, "final_norm")
        if self._dtype != np.float32:
            x = graph.cast(x, np.float32, "single_maps")
        x = graph.add("GlobalAveragePool", [x], "pool")
        features = graph.add("Flatten", [x], "features")
        kernel = graph.constant("head/kernel", self._arrays["params/head/kernel"])
        bias = graph.constant("head/bias", self._arrays["params/head/bias"])
        return graph.add("Gemm", [features, kernel, bias], "logits"), features

    def _block(self, x: str, name: str, *, first: bool) -> str:
        """Adds a block; its first one in a stage has stride 2 and a projection."""
        graph, shortcut = self._graph, x
        stride = 2 if first else 1
        if first:
            shortcut = self._norm_relu(x, f"{name}/shortcut_norm")
            shortcut = self._convolution(shortcut, f"{name}/shortcut_conv", stride=stride)
        x = self._norm_relu(x, f"{name}/norm1")
        x = self._convolution(x, f"{name}/conv1", norm=f"{name}/norm2")
        x = graph.add("Relu", [x], f"{name}/relu2")
        x = self._convolution(x, f"{name}/conv2", norm=f"{name}/norm3", stride=stride)
        x = graph.add("Relu", [x], f"{name}/relu3")
        x = self._convolution(x, f"{name}/conv3")
        return graph.add("Add", [x, shortcut], f"{name}/sum")

    def _convolution(self, x: str, name: str, *, norm: str = "", stride: int = 1) -> str:
        kernel = self._arrays[f"params/{name}/kernel"].transpose(3, 2, 0, 1)  # [out, in, K, K]
        inputs = [x, f"{name}/kernel"]
        if norm:
            factor, shift = self._factor_and_shift(norm)
            kernel = kernel * factor[:, None, None, None]
            inputs.append(self._constant(f"{name}/bias", shift))
        self._constant(f"{name}/kernel", kernel)
        side = kernel.shape[-1]
        before = (side - 1) // 2  # as in `models.resnet`
        after = side - 1 - before
        return self._graph.add(
            "Conv",
            inputs,
            name,
            kernel_shape=[side, side],
            strides=[stride, stride],
            pads=[before, before, after, after],
        )

    def _norm_relu(self, x: str, name: str) -> str:
        factor, shift = self._factor_and_shift(name)
        width = len(factor)
        inputs = [
            x,
            self._constant(f"{name}/scale", factor),
            self._constant(f"{name}/bias", shift),
            self._constant(f"zeros{width}", np.zeros(width)),  # mean and variance
            self._constant(f"ones{width}", np.ones(width)),
        ]
        x = self._graph.add("BatchNormalization", inputs, name, epsilon=0.0)
        return self._graph.add("Relu", [x], f"{name}/relu")

    def _factor_and_shift(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns a BatchNorm as x * factor + shift, both float64 [C]."""
        scale, bias = (self._arrays[f"params/{name}/{leaf}"] for leaf in ("scale", "bias"))
        mean, var = (self._arrays[f"batch_stats/{name}/{leaf}"] for leaf in ("mean", "var"))
        factor = scale / np.sqrt(var.astype(np.float64) + GroupBatchNorm.epsilon)
        return factor, bias - mean * factor

    def _constant(self, name: str, value: np.ndarray) -> str:
        return self._graph.constant(name, value, self._dtype)
