# SPDX-License-Identifier: BSD-3-Clause
"""The operators that turn uint8 images of any size into a network's input: crop, resize, levels.

A resize is a product with two matrices, one for the rows and one for the columns, computed in the
graph from the size of the images. One form serves all interpolations, a crop only shortens it, and
every runtime has its operators. The result is that of `data.images.transforms`, except that OpenCV,
with integers, makes an eighth of the pixels of a bilinear resize one level darker.
"""

from collections.abc import Callable

import numpy as np

from mlimages_jax.convert import ConvertError
from mlimages_jax.convert.onnx_graph import Graph
from mlimages_jax.data.images.views import ViewName


def add_preprocessing(graph: Graph, images: str, *, view: ViewName, size: int) -> str:
    """Adds the operators to a graph.

    Args:
        graph: The graph to extend.
        images: Name of the input, uint8 [N, H, W, 3].
        view: How an image is resized and cropped, see `data.images.views.EvaluationView`.
        size: Side of the result in pixels, S.

    Returns:
        Name of the result, float32 [N, 3, S, S] in [-1, 1].

    Raises:
        ConvertError: If the view makes several images of one.
    """
    if view == "ten_crop":
        raise ConvertError(
            "--uint8-input: ten crops of an image do not fit into the graph; give "
            "--view=short_side, which is their central one"
        )
    shape = graph.add("Shape", [images], "image_shape")
    height, width = (
        graph.add("Gather", [shape, graph.constant(f"{name}/axis", axis, np.int64)], name)
        for axis, name in ((1, "height"), (2, "width"))
    )
    rows = _Axis(graph, height, width, size=size, name="rows").matrix(view)  # [S, H]
    columns = _Axis(graph, width, height, size=size, name="columns").matrix(view)  # [S, W]
    columns = graph.add("Transpose", [columns], "columns/transposed")
    x = graph.add("Transpose", [images], "channels_first", perm=[0, 3, 1, 2])
    x = graph.cast(x, np.float32, "levels")
    x = graph.add("MatMul", [rows, x], "resized_rows")
    x = graph.add("MatMul", [x, columns], "resized")
    if view != "central":
        x = graph.add("Round", [x], "rounded")  # these views are uint8 images
    x = graph.add("Mul", [x, graph.constant("level", 2 / 255, np.float32)], "scaled")
    return graph.add("Sub", [x, graph.constant("1_float32", 1, np.float32)], "network_input")


class _Axis:
    """Computes the matrix of one axis of the images.

    Args:
        graph: The graph to extend.
        side: Name of the length of this axis, int64.
        other: Name of the length of the other axis, int64.
        size: Length after the resize, S.
        name: Prefix for the names of values.
    """

    def __init__(self, graph: Graph, side: str, other: str, *, size: int, name: str):
        self._graph = graph
        self._side = side
        self._other = other
        self._size = size
        self._name = name
        self._ramp = graph.constant("ramp", np.arange(size)[:, None], np.float32)  # [S, 1]
        self._one = self._number(1)

    def matrix(self, view: ViewName) -> str:
        """Adds the matrix, float32 [S, side]; rows sum to 1."""
        start, step = self._number(0, np.int64), self._number(1, np.int64)
        pixels = self._do("Range", start, self._side, step, as_="range")
        pixels = self._float(pixels, "pixels")
        matrices: dict[ViewName, Callable[[str], str]] = {
            "central": self._central, "short_side": self._short_side, "whole": self._whole
        }  # fmt: skip
        return matrices[view](pixels)

    def _central(self, pixels: str) -> str:
        """The central 80%, resized without half-pixel centres."""
        margin = self._do("Div", self._side, self._number(10, np.int64), as_="margin")
        length = self._do("Sub", self._side, margin, as_="without_margin")
        length = self._float(self._do("Sub", length, margin, as_="length"), "length_float")
        scale = self._do("Div", length, self._number(self._size), as_="scale")
        position = self._do("Mul", self._ramp, scale, as_="position")
        # Counted from the margin, so that large images lose no digits of the position.
        pixels = self._do("Sub", pixels, self._float(margin, "margin_float"), as_="from_margin")
        return self._bilinear(position, pixels, length)

    def _short_side(self, pixels: str) -> str:
        """The centre, where the short side is 256 / 224 of the size."""
        # In float64 and in this order, as the view rounds down.
        side, other = (
            self._graph.cast(value, np.float64, f"{self._name}/{as_}")
            for value, as_ in ((self._side, "side_double"), (self._other, "other_double"))
        )
        ratio = self._do("Div", side, self._do("Min", side, other, as_="short"), as_="ratio")
        short = self._number(round(self._size * 256 / 224), np.float64)
        new = self._do("Mul", ratio, short, as_="new_double")
        new = self._graph.cast(new, np.int64, f"{self._name}/new")
        spare = self._do("Sub", new, self._number(self._size, np.int64), as_="spare")
        first = self._do("Div", spare, self._number(2, np.int64), as_="first")
        ramp = self._do("Add", self._ramp, self._float(first, "first_float"), as_="ramp")
        length = self._float(self._side, "length")
        scale = self._do("Div", length, self._float(new, "new_float"), as_="scale")
        return self._bilinear(self._centres(ramp, scale), pixels, length)

    def _whole(self, pixels: str) -> str:
        """The mean of the pixels that each new one covers; bilinear if a side grows."""
        length = self._float(self._side, "length")
        scale = self._do("Div", length, self._number(self._size), as_="scale")
        start = self._do("Mul", self._ramp, scale, as_="start")
        start_or_pixel = self._do("Max", start, pixels, as_="from")
        end = self._do("Add", start, scale, as_="end")
        pixel_end = self._do("Add", pixels, self._one, as_="pixel_end")
        covered = self._do("Min", end, pixel_end, as_="to")
        covered = self._do("Sub", covered, start_or_pixel, as_="overlap")
        covered = self._do("Relu", covered, as_="covered")
        area = self._do("Div", covered, scale, as_="area")
        bilinear = self._bilinear(self._centres(self._ramp, scale), pixels, length)
        short = self._do("Min", self._side, self._other, as_="short")
        grows = self._do("Less", short, self._number(self._size, np.int64), as_="grows")
        return self._do("Where", grows, bilinear, area, as_="matrix")

    def _centres(self, ramp: str, scale: str) -> str:
        """Positions of pixel centres: (i + 0.5) * scale - 0.5."""
        half = self._number(0.5)
        centre = self._do("Add", ramp, half, as_="centre")
        centre = self._do("Mul", centre, scale, as_="scaled_centre")
        return self._do("Sub", centre, half, as_="old_centre")

    def _bilinear(self, position: str, pixels: str, length: str) -> str:
        """Weights 1 - distance of the neighbours of each position; edges are repeated."""
        last = self._do("Sub", length, self._one, as_="last")
        position = self._do("Clip", position, self._number(0), last, as_="inside")
        distance = self._do("Sub", position, pixels, as_="offset")
        distance = self._do("Abs", distance, as_="distance")
        return self._do("Relu", self._do("Sub", self._one, distance, as_="near"), as_="bilinear")

    def _do(self, operator: str, *inputs: str, as_: str) -> str:
        return self._graph.add(operator, list(inputs), f"{self._name}/{as_}")

    def _float(self, value: str, as_: str) -> str:
        return self._graph.cast(value, np.float32, f"{self._name}/{as_}")

    def _number(self, value: float, dtype: type = np.float32) -> str:
        return self._graph.constant(f"{value:g}_{np.dtype(dtype).name}", value, dtype)
