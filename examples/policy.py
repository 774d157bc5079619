"""Writes policy.onnx, the host's own network in ort_handoff.c: what PyTorch would export for
Linear(4, 16), ReLU, Linear(16, 2). Its weights are zeros; the host hands the real ones over.

    pip install onnx && python3 policy.py
"""

import pathlib

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

SHAPES = {"fc1.weight": (16, 4), "fc1.bias": (16,), "fc2.weight": (2, 16), "fc2.bias": (2,)}

nodes = [
    helper.make_node("Gemm", ["observation", "fc1.weight", "fc1.bias"], ["sum"], transB=1),
    helper.make_node("Relu", ["sum"], ["hidden"]),
    helper.make_node("Gemm", ["hidden", "fc2.weight", "fc2.bias"], ["action"], transB=1),
]
graph = helper.make_graph(
    nodes,
    "policy",
    [helper.make_tensor_value_info("observation", TensorProto.FLOAT, [1, 4])],
    [helper.make_tensor_value_info("action", TensorProto.FLOAT, [1, 2])],
    [numpy_helper.from_array(numpy.zeros(shape, numpy.float32), name)
     for name, shape in SHAPES.items()],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)
onnx.save(model, pathlib.Path(__file__).with_name("policy.onnx"))
