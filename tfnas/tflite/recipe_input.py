"""Files of other origin in the form that ai-edge-quantizer reads.

The quantizer takes what TensorFlow's converter writes today. Other files that LiteRT runs lack
some of it, and are left alone or misread without a message. :func:`for_quantizer` gives them

- the codes of operators in the field of today: files from before 2021 have a shorter one;
- weights of 32 bits in place of those of 16 bits and the DEQUANTIZE behind them;
- a signature, where the file has none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.file_signatures import signature_names
from tfnas.tflite.flatbuffer import integers, pack, unpack

_DEFAULT_SIGNATURE = "serving_default"
_TYPE = schema.TensorType


def for_quantizer(content: bytes, name_inputs: bool) -> tuple[bytes, str]:
    """Returns a file as ai-edge-quantizer reads it, and the key of its signature.

    Args:
        content: A validated `.tflite` file, of one signature or none.
        name_inputs: Whether the signature is used: it is added to a file without one.

    Returns:
        The file, unchanged where nothing is missing, and the key; "" where it is not used.

    Raises:
        ValueError: The file has buffers behind its flatbuffer.
    """
    model = unpack(content)
    changed = _renew_codes(model)
    changed |= _widen_weights(model)
    key = ""
    if name_inputs:
        keys = signature_names(content)
        key = keys[0] if keys else _DEFAULT_SIGNATURE
        if not keys:
            model.signatureDefs = [_signature(model.subgraphs[0], key)]
            changed = True
    return (pack(model) if changed else content), key


def _renew_codes(model: Any) -> bool:
    changed = False
    for code in model.operatorCodes:
        if code.builtinCode < code.deprecatedBuiltinCode:
            code.builtinCode, changed = code.deprecatedBuiltinCode, True
    return changed


def _widen_weights(model: Any) -> bool:
    """Replaces each DEQUANTIZE of a constant of 16-bit floats by a constant of 32 bits."""
    changed = False
    wide: dict[int, int] = {}  # buffer of 16-bit numbers -> buffer of the same in 32 bits
    for graph in model.subgraphs:
        kept = []
        for op in graph.operators or ():
            if not _widens_a_constant(model, graph, op):
                kept.append(op)
                continue
            source = graph.tensors[op.inputs[0]].buffer
            if source not in wide:
                values = np.asarray(model.buffers[source].data, np.uint8).view(np.float16)
                model.buffers.append(schema.BufferT())
                wide[source] = len(model.buffers) - 1
                model.buffers[-1].data = values.astype(np.float32).view(np.uint8)
            graph.tensors[op.outputs[0]].buffer = wide[source]
        changed |= len(kept) < len(graph.operators or ())
        graph.operators = kept
    _drop_unused(model, wide)
    return changed


def _widens_a_constant(model: Any, graph: Any, op: Any) -> bool:
    if model.operatorCodes[op.opcodeIndex].builtinCode != schema.BuiltinOperator.DEQUANTIZE:
        return False
    if len(integers(op.inputs)) != 1 or op.outputs[0] in integers(graph.outputs):
        return False
    source = graph.tensors[op.inputs[0]]
    stored = model.buffers[source.buffer].data is not None and source.sparsity is None
    return stored and source.type == _TYPE.FLOAT16


def _drop_unused(model: Any, buffers: Iterable[int]) -> None:
    """Shrinks 16-bit constants that no operator reads any more to one number.

    The tensors themselves stay, since operators name tensors by their places; the quantizer reads
    them all, so that none may be without numbers.
    """
    used = {
        graph.tensors[i].buffer
        for graph in model.subgraphs
        for op in graph.operators or ()
        for i in integers(op.inputs)
        if i >= 0
    }
    dropped = set(buffers) - used
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.buffer in dropped:
                tensor.shape, tensor.shapeSignature = np.array([1], np.int32), None
                tensor.type = _TYPE.FLOAT32
    for buffer in dropped:
        model.buffers[buffer].data = np.zeros(4, np.uint8)


def _signature(graph: Any, key: str) -> schema.SignatureDefT:
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = key.encode(), 0
    signature.inputs = [_named(graph, index) for index in integers(graph.inputs)]
    signature.outputs = [_named(graph, index) for index in integers(graph.outputs)]
    return signature


def _named(graph: Any, index: int) -> schema.TensorMapT:
    found = schema.TensorMapT()
    found.name, found.tensorIndex = graph.tensors[index].name or b"", index
    return found
