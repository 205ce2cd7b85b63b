"""Mending what TensorFlow's converter writes of a graph of roundings.

It makes int16 activations of 16-bit ones (see :mod:`tfnas.quantization.quantize_aware`), but two
things that TFLite's kernels do not take, which the post-training path does right:

- biases of 32 bits: a depthwise convolution refuses them, and the others would add up in 32
  bits, too few for sums of 16 x 8 bits;
- a LOGISTIC with a step of 2^-16 and a zero point, where the kernel knows 2^-15 and none.

And a bias that its integers can't hold it cuts without a word, with 8 bits too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.flatbuffer import pack, unpack

_OPERATOR, _TYPE = schema.BuiltinOperator, schema.TensorType
_PLACE_OF_BIAS = {
    _OPERATOR.CONV_2D: 2,
    _OPERATOR.DEPTHWISE_CONV_2D: 2,
    _OPERATOR.FULLY_CONNECTED: 2,
    _OPERATOR.TRANSPOSE_CONV: 3,
}
# These read the step of what they are given; others would expect one like their output's.
_TAKE_ANY_STEP = (_OPERATOR.QUANTIZE, _OPERATOR.MUL)
_LIMITS = np.iinfo(np.int32)


def mend(content: bytes) -> bytes:
    """Returns a `.tflite` file as its kernels want it; one of 8 bits as it is.

    Args:
        content: The file.

    Raises:
        ValueError: A bias did not fit into 32 bits, so that the converter has cut it, or a
            LOGISTIC's numbers go where another step would change them.
    """
    model = unpack(content)
    changed = False
    for graph in model.subgraphs:
        for op in graph.operators:
            kind, taken = _kind(model, op), [i for i in op.inputs if i >= 0]
            int16 = any(graph.tensors[i].type == _TYPE.INT16 for i in taken)
            place = _PLACE_OF_BIAS.get(kind, len(op.inputs))
            if place < len(op.inputs) and op.inputs[place] >= 0:
                _check_bias(model, graph.tensors[op.inputs[place]])
                if int16:
                    _widen(model, graph.tensors[op.inputs[place]])
            if int16 and kind == _OPERATOR.LOGISTIC:
                _set_step(model, graph, op.outputs[0])
            changed |= int16
    return pack(model) if changed else content


def _kind(model: Any, op: Any) -> int:
    code = model.operatorCodes[op.opcodeIndex]
    return max(code.builtinCode, code.deprecatedBuiltinCode)


def _name(tensor: Any) -> str:
    return (tensor.name or b"").decode()


def _check_bias(model: Any, tensor: Any) -> None:
    if tensor.type != _TYPE.INT32 or model.buffers[tensor.buffer].data is None:
        return
    values = _numbers(model, tensor)
    if ((values == _LIMITS.max) | (values == _LIMITS.min)).any():
        raise ValueError(
            f"biases must fit into 32 bits, got {_name(tensor)!r}, which was cut: the layer's "
            "input or kernel has too narrow a range beside it"
        )


def _widen(model: Any, tensor: Any) -> None:
    """Gives a bias a buffer of its own with the same numbers in 64 bits."""
    if tensor.type != _TYPE.INT32:  # done before, for another operator
        return
    buffer = schema.BufferT()
    buffer.data = _numbers(model, tensor).astype(np.int64).view(np.uint8)
    model.buffers.append(buffer)
    tensor.buffer, tensor.type = len(model.buffers) - 1, _TYPE.INT64


def _numbers(model: Any, tensor: Any) -> np.ndarray:
    return np.asarray(model.buffers[tensor.buffer].data, np.uint8).view(np.int32)


def _set_step(model: Any, graph: Any, index: int) -> None:
    users = [_kind(model, op) for op in graph.operators if index in op.inputs]
    if index in graph.outputs or not set(users) <= set(_TAKE_ANY_STEP):
        name = _name(graph.tensors[index])
        raise ValueError(f"a 16-bit LOGISTIC must be followed by its rounding, got {name!r}")
    quantization = graph.tensors[index].quantization
    quantization.scale = np.array([2.0**-15], np.float32)
    quantization.zeroPoint = np.array([0], np.int64)
