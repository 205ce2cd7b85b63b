"""Repair of the gaps of floats that stand between integer tensors of two types.

The converter has no way to say that an 8-bit tensor goes on with 16 bits. A model says it by a cast
to float64 and back (:func:`tfnas.quantization.inner_ranges.as_sixteen_bits`), which the converter
writes as DEQUANTIZE, CAST, CAST, QUANTIZE. One QUANTIZE computes the same from integers.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from ai_edge_litert import schema_py_generated as schema

_OPERATOR, _TYPE = schema.BuiltinOperator, schema.TensorType
_INTEGERS = (_TYPE.INT8, _TYPE.INT16)


def close_float_gaps(model: Any) -> bool:
    """Replaces casts of quantized numbers to floats and back by one QUANTIZE, in place.

    Args:
        model: The objects of a file, of :func:`tfnas.tflite.flatbuffer.unpack`.

    Returns:
        Whether any was replaced.
    """
    changed = False
    for graph in model.subgraphs:
        makers = {index: op for op in graph.operators for index in op.outputs}
        uses = Counter(index for op in graph.operators for index in op.inputs)
        uses.update(graph.outputs)
        removed: set[int] = set()
        for op in graph.operators:
            if kind_of(model, op) != _OPERATOR.QUANTIZE:
                continue
            gap = _gap_before(model, graph, op, makers)
            if gap is None:
                continue
            op.inputs, changed = [gap[-1].inputs[0]], True
            for part in gap:  # from the last one on, as far as nothing else reads it
                uses[part.outputs[0]] -= 1
                if uses[part.outputs[0]]:
                    break
                removed.add(id(part))
        graph.operators = [op for op in graph.operators if id(op) not in removed]
    return changed


def kind_of(model: Any, op: Any) -> int:
    """Returns the number of an operator's kind.

    Args:
        model: The objects of a file.
        op: One of its operators.
    """
    code = model.operatorCodes[op.opcodeIndex]
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


def _gap_before(model: Any, graph: Any, op: Any, makers: dict[int, Any]) -> list[Any] | None:
    """The casts and the DEQUANTIZE before a QUANTIZE, the last one first; None for others."""
    gap: list[Any] = []
    maker = makers.get(op.inputs[0])
    while maker is not None and kind_of(model, maker) == _OPERATOR.CAST:
        gap.append(maker)
        maker = makers.get(maker.inputs[0])
    if not gap or maker is None or kind_of(model, maker) != _OPERATOR.DEQUANTIZE:
        return None
    types = {graph.tensors[part.outputs[0]].type for part in gap}
    if graph.tensors[maker.inputs[0]].type not in _INTEGERS or not types <= _FLOATS:
        return None
    return [*gap, maker]


_FLOATS = {_TYPE.FLOAT32, _TYPE.FLOAT64}
