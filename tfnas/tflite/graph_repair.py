"""Repair of files that TensorFlow's converter writes for quantization-aware models.

With 16-bit activations (:mod:`tfnas.quantization.quantize_aware`) the converter writes two things
that TFLite's kernels don't accept, though it gets them right after post-training quantization:

- 32-bit biases: a depthwise convolution refuses them, and other operators would then accumulate
  in 32 bits, too few for sums of 16-bit times 8-bit products;
- a LOGISTIC with a scale of 2^-16 and a zero point, where the kernel requires 2^-15 and 0.

It also has no form for a change of types (:mod:`tfnas.tflite.float_gaps`), for functions that are
tables (:mod:`tfnas.tflite.activation_tables`) and for comparisons of integers
(:mod:`tfnas.tflite.integer_comparisons`), and needs casts around layers that stay float, which no
file does (:mod:`tfnas.tflite.float_detours`). With 8 bits too, it silently clips a bias that
overflows its 32 bits.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.activation_tables import write_tables
from tfnas.tflite.flatbuffer import OperatorInfo, kind_of, pack, unpack
from tfnas.tflite.float_detours import remove_detours
from tfnas.tflite.float_gaps import close_float_gaps
from tfnas.tflite.integer_comparisons import compare_integers
from tfnas.tflite.integer_means import cast_before_zero_sums, write_means
from tfnas.tflite.unused_parts import remove_unused

_OPERATOR, _TYPE = schema.BuiltinOperator, schema.TensorType
_BIAS_INPUT = {  # operator -> index of its bias among its inputs
    _OPERATOR.CONV_2D: 2,
    _OPERATOR.DEPTHWISE_CONV_2D: 2,
    _OPERATOR.FULLY_CONNECTED: 2,
    _OPERATOR.TRANSPOSE_CONV: 3,
}
# Name -> index of the activations among the inputs; the kernel is the second input.
_PRODUCTS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 0, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 2}
# These read the scale of their input; other operators rely on one that fits their output's.
_ACCEPT_ANY_SCALE = (_OPERATOR.QUANTIZE, _OPERATOR.MUL)
_LIMITS = np.iinfo(np.int32)


_MOST_STEPS = 256  # of an output in a step of the product before it, by XNNPACK


def too_fine(op: OperatorInfo) -> bool:
    """Returns whether an output's steps are so fine that XNNPACK refuses the operator.

    Args:
        op: An operator; those without an integer kernel are fine.
    """
    if op.name not in _PRODUCTS or op.inputs[0].dtype != "int8":
        return False
    x, kernel, output = op.inputs[_PRODUCTS[op.name]], op.inputs[1], op.outputs[0]
    if not (x.scales and kernel.scales and output.scales):
        return False
    return max(x.scales) * max(kernel.scales) >= _MOST_STEPS * min(output.scales)


def repair(content: bytes, detours: Collection[str] = ()) -> bytes:
    """Returns a `.tflite` file with 16-bit operators as TFLite's kernels require them.

    Args:
        content: The file.
        detours: Names of the layers that cast numbers for the converter alone.

    Returns:
        The repaired file; a file without 16-bit numbers is returned unchanged.

    Raises:
        ValueError: The converter clipped a bias that overflows 32 bits, or an operator relies on
            the scale of a LOGISTIC that has to change.
    """
    model = unpack(content)
    means = (write_means, cast_before_zero_sums)
    steps = (close_float_gaps, *means, write_tables, compare_integers)
    done = [step(model) for step in steps]  # each of them, whatever the others have done
    done.append(remove_detours(model, detours))
    changed = any(done)
    if changed:
        remove_unused(model)
    for graph in model.subgraphs:
        for op in graph.operators:
            kind, inputs = kind_of(model, op), [i for i in op.inputs if i >= 0]
            int16 = any(graph.tensors[i].type == _TYPE.INT16 for i in inputs)
            bias = _BIAS_INPUT.get(kind, len(op.inputs))
            if bias < len(op.inputs) and op.inputs[bias] >= 0:
                _check_bias(model, graph.tensors[op.inputs[bias]])
                if int16:
                    _widen_to_int64(model, graph.tensors[op.inputs[bias]])
            if int16 and kind == _OPERATOR.LOGISTIC:
                _set_logistic_scale(model, graph, op.outputs[0])
            changed |= int16
    return pack(model) if changed else content


def _name(tensor: Any) -> str:
    return (tensor.name or b"").decode()


def _check_bias(model: Any, tensor: Any) -> None:
    if tensor.type != _TYPE.INT32 or model.buffers[tensor.buffer].data is None:
        return
    values = _numbers(model, tensor)
    if ((values == _LIMITS.max) | (values == _LIMITS.min)).any():
        raise ValueError(
            f"biases must fit into 32 bits, got {_name(tensor)!r}, which was clipped: the range "
            "of the layer's input or kernel is too small beside it"
        )


def _widen_to_int64(model: Any, tensor: Any) -> None:
    """Gives a bias its own buffer with the same integers in 64 bits."""
    if tensor.type != _TYPE.INT32:  # already done for another operator
        return
    buffer = schema.BufferT()
    buffer.data = _numbers(model, tensor).astype(np.int64).view(np.uint8)
    model.buffers.append(buffer)
    tensor.buffer, tensor.type = len(model.buffers) - 1, _TYPE.INT64


def _numbers(model: Any, tensor: Any) -> np.ndarray:
    return np.asarray(model.buffers[tensor.buffer].data, np.uint8).view(np.int32)


def _set_logistic_scale(model: Any, graph: Any, index: int) -> None:
    consumers = [kind_of(model, op) for op in graph.operators if index in op.inputs]
    if index in graph.outputs or not set(consumers) <= set(_ACCEPT_ANY_SCALE):
        name = _name(graph.tensors[index])
        raise ValueError(f"a 16-bit LOGISTIC must be followed by a QUANTIZE or MUL, got {name!r}")
    quantization = graph.tensors[index].quantization
    quantization.scale = np.array([2.0**-15], np.float32)
    quantization.zeroPoint = np.array([0], np.int64)
