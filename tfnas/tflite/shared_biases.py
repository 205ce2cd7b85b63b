"""Biases of integer files that several operators read.

A bias of integers is in steps of the operator's input scale times its kernel scales. For a layer
that is called twice, TensorFlow's converter writes one bias of 16-bit files, with the steps of one
call, and TFLite's kernels add its integers in the other call too: a bias that is too large or too
small there. Here each call gets the bias in steps of its own.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.flatbuffer import OperatorInfo, kind_of, pack, read_graphs, unpack

_OPERATOR, _TYPE = schema.BuiltinOperator, schema.TensorType
# Operator -> indices of its activations and of its bias among its inputs; the kernel is the second.
BIASED = {"CONV_2D": (0, 2), "DEPTHWISE_CONV_2D": (0, 2), "FULLY_CONNECTED": (0, 2)}
BIASED |= {"TRANSPOSE_CONV": (2, 3)}
_KINDS = {getattr(_OPERATOR, name): indices for name, indices in BIASED.items()}
_DTYPES: dict[int, Any] = {_TYPE.INT32: np.int32, _TYPE.INT64: np.int64}
_CLOSE = 1e-3  # the converter multiplies scales in 32 bits


def with_own_biases(content: bytes) -> bytes:
    """Returns a `.tflite` file whose biases have the steps of the operators that read them.

    Args:
        content: The file.

    Returns:
        The mended file; one with nothing to mend, or that is corrupt, is returned unchanged.
    """
    try:
        operators = [op for graph in read_graphs(content) for op in graph.operators]
    except ValueError:  # the pass that validates the file says so
        return content
    if not any(map(_is_foreign, operators)):
        return content
    model = unpack(content)
    for graph in model.subgraphs:
        for op in graph.operators:
            _give_own_bias(model, graph, op)
    return pack(model)


def _is_foreign(op: OperatorInfo) -> bool:
    """Whether the bias of an operator is in steps of another one."""
    x, bias = BIASED.get(op.name, (0, len(op.inputs)))
    if bias >= len(op.inputs):
        return False
    own, product = op.inputs[bias].scales, _steps(op.inputs[x].scales, op.inputs[1].scales)
    return bool(len(own)) and product is not None and not _are_alike(np.asarray(own), product)


def _give_own_bias(model: Any, graph: Any, op: Any) -> None:
    """Gives an operator a bias of its own where that which it reads has other steps."""
    x, bias = _KINDS.get(kind_of(model, op), (0, len(op.inputs)))
    if bias >= len(op.inputs) or op.inputs[bias] < 0:
        return
    shared = graph.tensors[op.inputs[bias]]
    scales = [
        None if (found := graph.tensors[index].quantization) is None else found.scale
        for index in (op.inputs[x], op.inputs[1], op.inputs[bias])
    ]
    product, data = _steps(*scales[:2]), model.buffers[shared.buffer].data
    if scales[2] is None or product is None or data is None or shared.type not in _DTYPES:
        return
    if _are_alike(scales[2], product):
        return
    dtype = _DTYPES[shared.type]
    values = np.asarray(data, np.uint8).view(dtype) * np.asarray(scales[2], np.float64)
    limits = np.iinfo(dtype)
    buffer = schema.BufferT()
    # The largest 64-bit integer is no float64.
    numbers = np.clip(np.round(values / product), limits.min, np.nextafter(float(limits.max), 0))
    buffer.data = numbers.astype(dtype).view(np.uint8)
    model.buffers.append(buffer)
    own = copy.deepcopy(shared)
    own.buffer = len(model.buffers) - 1
    own.quantization.scale = np.broadcast_to(product, values.shape).astype(np.float32)
    own.quantization.zeroPoint = np.zeros(len(values), np.int64)
    graph.tensors.append(own)
    inputs = [*map(int, op.inputs)]
    inputs[bias] = len(graph.tensors) - 1
    op.inputs = inputs


def _steps(x: Any, kernel: Any) -> np.ndarray | None:
    """The steps of a product; None: they are not known."""
    if x is None or kernel is None or len(x) != 1 or not len(kernel):
        return None
    return np.asarray(kernel, np.float64) * float(x[0])


def _are_alike(own: Any, product: np.ndarray) -> bool:
    return bool(np.allclose(own, product, rtol=_CLOSE, atol=0))
