"""Files as LiteRT for the web can run them: one example at a time, and no int8 ends.

LiteRT for the web (`@litertjs/core` 2.5.3) takes and returns float32, int32 and uint8 alone, and
refuses inputs of an open batch. So an int8 file gets a QUANTIZE operator behind each input and a
DEQUANTIZE operator before each output, which compute what the page would have to, and shapes that
the file leaves open become those that it stores, a batch of one.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.artifact import Artifact, as_artifact
from tfnas.tflite.file_editor import FileEditor
from tfnas.tflite.flatbuffer import integers

_OPERATOR, _TYPE = schema.BuiltinOperator, schema.TensorType
# Element type -> lowest versions of QUANTIZE and DEQUANTIZE that know it.
_VERSIONS = {_TYPE.INT8: (1, 2), _TYPE.INT16: (2, 3)}


def for_browser(file: Artifact | str | os.PathLike[str]) -> Artifact:
    """Returns a file that LiteRT for the web can run: a batch of one, and float32 ends.

    Inputs and outputs of int8 and int16 become float32; inside, the file computes the same
    integers. Names and signatures stay.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> x = np.linspace(-1, 1, 32).reshape(8, 4)
        >>> file = tfnas.to_tflite(model, "int8", x)
        >>> web = tfnas.for_browser(file)
        >>> web.inputs[0].shape, web.inputs[0].dtype, web.outputs[0].dtype
        ((1, 4), 'float32', 'float32')
        >>> bool((web.predict(x) == file.predict(x)).all())
        True

    Args:
        file: An artifact or the path of a file.

    Returns:
        The file; the same one where nothing changes.

    References:
        `DType` of the npm package @litertjs/core, version 2.5.3.
    """
    artifact = as_artifact(file)
    editor = FileEditor(artifact.content)
    if not _fix_shapes(editor) + _float_ends(editor):
        return artifact
    return dataclasses.replace(artifact, content=editor.packed())


def _fix_shapes(editor: FileEditor) -> int:
    """Gives tensors of open sizes the sizes that the file stores; returns how many there were."""
    tensors = [tensor for graph in editor.model.subgraphs for tensor in graph.tensors or ()]
    open_ones = [each for each in tensors if -1 in integers(each.shapeSignature)]
    for tensor in open_ones:
        tensor.shapeSignature = None
    return len(open_ones)


def _float_ends(editor: FileEditor) -> int:
    """Gives quantized ends float32 ones; returns how many there were."""
    graph = editor.graph
    inputs = {i: _input(editor, i) for i in integers(graph.inputs) if _is_quantized(editor, i)}
    outputs = {i: _output(editor, i) for i in integers(graph.outputs) if _is_quantized(editor, i)}
    graph.inputs = [inputs.get(i, i) for i in integers(graph.inputs)]
    graph.outputs = [outputs.get(i, i) for i in integers(graph.outputs)]
    for signature in editor.model.signatureDefs or ():
        if signature.subgraphIndex == 0:
            _point_to(signature.inputs, inputs)
            _point_to(signature.outputs, outputs)
    return len(inputs) + len(outputs)


def _is_quantized(editor: FileEditor, index: int) -> bool:
    tensor = editor.graph.tensors[index]
    scale = None if tensor.quantization is None else tensor.quantization.scale
    return tensor.type in _VERSIONS and scale is not None and len(scale) > 0


def _input(editor: FileEditor, index: int) -> int:
    """Adds a QUANTIZE operator behind an input; returns the new input."""
    version = _VERSIONS[editor.graph.tensors[index].type][0]
    added = _twin(editor, index)
    editor.graph.operators.insert(0, editor.operator(_OPERATOR.QUANTIZE, version, [added], [index]))
    return added


def _output(editor: FileEditor, index: int) -> int:
    """Adds a DEQUANTIZE operator behind an output; returns the new output."""
    version = _VERSIONS[editor.graph.tensors[index].type][1]
    added = _twin(editor, index)
    editor.graph.operators.append(editor.operator(_OPERATOR.DEQUANTIZE, version, [index], [added]))
    return added


def _twin(editor: FileEditor, index: int) -> int:
    """Adds a float tensor that takes the name of a quantized one."""
    tensor = editor.graph.tensors[index]
    added = editor.tensor_like(tensor, "", _TYPE.FLOAT32)
    tensor.name = (tensor.name or b"") + b"_integers"
    return added


def _point_to(maps: Any, changed: dict[int, int]) -> None:
    for each in maps or ():
        each.tensorIndex = changed.get(each.tensorIndex, each.tensorIndex)
