# SPDX-License-Identifier: BSD-3-Clause
"""An ONNX graph that grows by one operator at a time."""

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

OPSET = 17  # of July 2022: everything in use reads it
_IR_VERSION = 8  # the file format that came with it; onnx would write its newest
MAX_BYTES = 2**31 - 1  # of a protobuf message


class Graph:
    """Operators in the order of their computation, and their constants.

    Values are named after the operators that compute them.
    """

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: Any, dtype: Any = None) -> str:
        """Adds a constant, unless there is one of this name; returns the name."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.asarray(value, dtype), name)
        return name

    def add(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Adds an operator with one output; returns the name of the output, which is its own."""
        self._nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def cast(self, value: str, dtype: Any, name: str) -> str:
        """Adds a conversion to a dtype of NumPy."""
        return self.add("Cast", [value], name, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def model(
        self,
        inputs: list[onnx.ValueInfoProto],
        outputs: list[onnx.ValueInfoProto],
        metadata: dict[str, str],
    ) -> onnx.ModelProto:
        """Returns the model, checked, with the shapes of all values."""
        graph = helper.make_graph(
            self._nodes, "mlimages", inputs, outputs, list(self._constants.values())
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
            producer_name="mlimages_jax",
        )
        helper.set_model_props(model, metadata)
        if model.ByteSize() < MAX_BYTES:  # the checker cannot read more
            onnx.checker.check_model(model, full_check=True)
        return model
