"""Removal of casts to another precision and back, which only the converter needs.

Around a layer that stays float, a quantization-aware model casts numbers to float16, or to float64,
and back, so that the converter does not make integers of them
(:class:`tfnas.quantization.integer_layers.FloatInput`, `FakeQuant(after_float=True)`). In the file
these casts compute nothing: they cost time, round once more than needed (so the file is a little
closer to the float model than Keras is), and neither TFLite Micro nor TFLite's GPU delegate has a
kernel for them.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.flatbuffer import kind_of

_OPERATOR, _TYPE = schema.BuiltinOperator, schema.TensorType
_SCOPE_OF_CAST = re.compile(r"/([^/;]+)/Cast")


def remove_detours(model: Any, layers: Collection[str]) -> bool:
    """Lets operators read what stands before two casts of a detour, in place.

    Args:
        model: The objects of a file, of :func:`tfnas.tflite.flatbuffer.unpack`.
        layers: Names of the layers that make detours; casts of others are the user's own.

    Returns:
        Whether any was removed; the casts are still there, where nothing reads them any more.
    """
    changed = False
    for graph in model.subgraphs:
        makers = {index: op for op in graph.operators for index in op.outputs}
        sources = {
            op.outputs[0]: source
            for op in graph.operators
            if (source := _before_detour(model, graph, op, makers, layers)) is not None
        }
        for op in graph.operators:
            inputs = [sources.get(index, index) for index in op.inputs]
            if inputs != list(op.inputs):
                op.inputs, changed = inputs, True
    return changed


def _before_detour(
    model: Any, graph: Any, op: Any, makers: dict[int, Any], layers: Collection[str]
) -> int | None:
    """The float32 tensor that the second cast of a detour gives again; None of other operators."""
    first = makers.get(op.inputs[0]) if kind_of(model, op) == _OPERATOR.CAST else None
    if first is None or kind_of(model, first) != _OPERATOR.CAST:
        return None
    source, between, after = first.inputs[0], first.outputs[0], op.outputs[0]
    types = [graph.tensors[index].type for index in (source, between, after)]
    if types[0] != _TYPE.FLOAT32 or types[2] != _TYPE.FLOAT32:
        return None
    if types[1] not in (_TYPE.FLOAT16, _TYPE.FLOAT64):
        return None
    name = (graph.tensors[after].name or b"").decode()
    scopes = _SCOPE_OF_CAST.findall(name)  # Keras counts them, as in "float_x_input_1"
    ours = any(scope in layers or re.sub(r"_\d+$", "", scope) in layers for scope in scopes)
    return source if ours else None
