"""The layers of a user's model that the operators of its file come from, for people to read.

TensorFlow writes the scopes of an operation into the name of its tensor: the model, its layers and,
in them, steps of its own such as "Tensordot". tfnas adds layers of its own to a
quantization-aware model: "quantized_up" computes the user's layer "up".
"""

from __future__ import annotations

import re

from tfnas.tflite.flatbuffer import FileGraph, OperatorInfo, TensorInfo, layer_scopes

_OF_QUANTIZATION = re.compile(r"quantized_(.+)|float_(.+)_input|(.+)_range")


def layer_of(graph: FileGraph, op: OperatorInfo) -> str:
    """Returns the path of the layer that an operator comes from, such as "attention/key".

    It is in the name of the output or, where that is a name of the converter's, of the largest
    constant; else it is the layer of what the operator takes. Where no name has a layer, it is the
    output's name.

    Args:
        graph: The graph of the operator.
        op: The operator.
    """
    own = op.outputs[0].name if op.outputs else ""
    if "/" not in own:
        own = _scoped_name(graph, op) or own
    path = layer_scopes(own, op.counted)
    if any("/quantized_" in tensor.name for tensor in graph.tensors):
        path = [_user_name(part) for part in path]
    return "/".join(path)


def _scoped_name(graph: FileGraph, op: OperatorInfo) -> str:
    """The name with scopes of an operator's weights, or of an operator before it; "": none has."""
    seen: set[int] = set()
    while True:
        weights = [each for each in op.inputs if each.constant is not None and "/" in each.name]
        if weights:
            return max(weights, key=_size).name
        before = [graph.producer_of(each) for each in op.inputs if each.constant is None]
        known = [each for each in before if each is not None and each.outputs[0].index not in seen]
        if not known:
            return ""
        op = known[0]
        seen.add(op.outputs[0].index)
        if "/" in op.outputs[0].name:
            return op.outputs[0].name


def _size(tensor: TensorInfo) -> int:
    return len(tensor.constant or b"")


def _user_name(part: str) -> str:
    """The layer that a layer of a quantization-aware model computes, or is beside."""
    match = _OF_QUANTIZATION.fullmatch(part)
    return next(filter(None, match.groups())) if match else part
