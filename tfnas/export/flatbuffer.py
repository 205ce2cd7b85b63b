"""A `.tflite` file's subgraphs as plain records, read from its flatbuffer.

The interpreter hides what matters here: options of operators, the element type of 4-bit
weights, which tensors are constants. So the file itself is read, through the schema
that ai-edge-litert ships.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np
from ai_edge_litert import schema_py_generated as schema

_TYPE_NAMES = {v: k.lower() for k, v in vars(schema.TensorType).items() if not k.startswith("_")}
_OP_NAMES = {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One tensor of the file.

    Args:
        index: Its number.
        name: Its name.
        dtype: Its element type as the schema says it, such as "int4".
        shape: Its shape.
        constant: The bytes that the file holds for it, None for an activation.
    """

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    constant: bytes | None = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class OperatorInfo:
    """One operator of the file.

    Args:
        name: Its name, such as "CONV_2D"; a custom operator's own name.
        inputs: Its input tensors; optional ones that are absent are left out.
        outputs: Its output tensors.
        options: Its options object of the schema, or None.
        custom: Whether TFLite has no such built-in operator.
    """

    name: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    options: object = dataclasses.field(repr=False)
    custom: bool = False

    @property
    def layer(self) -> str:
        """The Keras layer that the operator came from, as far as the names tell."""
        return layer_name(self.outputs[0].name)


@dataclasses.dataclass(frozen=True)
class FileGraph:
    """The first subgraph of a `.tflite` file.

    Args:
        operators: In the order of execution.
        tensors: All tensors by number.
        inputs: The graph's inputs.
        outputs: The graph's outputs.
    """

    operators: tuple[OperatorInfo, ...]
    tensors: tuple[TensorInfo, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


def read_graph(content: bytes) -> FileGraph:
    """Reads the first subgraph of a `.tflite` file: the one that is run.

    Args:
        content: The file.

    Raises:
        ValueError: The content is no `.tflite` file.
    """
    return read_graphs(content)[0]


def read_graphs(content: bytes) -> list[FileGraph]:
    """Reads all subgraphs; bodies of loops and branches have their own.

    Args:
        content: The file.

    Raises:
        ValueError: The content is no `.tflite` file.
    """
    check_identifier(content)
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    return [_graph(model, graph) for graph in model.subgraphs]


def _graph(model: schema.ModelT, graph: schema.SubGraphT) -> FileGraph:
    tensors = tuple(_tensor(i, t, model.buffers) for i, t in enumerate(graph.tensors))
    operators = []
    for op in graph.operators:
        code = model.operatorCodes[op.opcodeIndex]
        builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
        custom = builtin == schema.BuiltinOperator.CUSTOM
        name = code.customCode.decode() if custom else _OP_NAMES.get(builtin, f"OP_{builtin}")
        ins = tuple(tensors[i] for i in op.inputs if i >= 0)
        outs = tuple(tensors[i] for i in op.outputs)
        operators.append(OperatorInfo(name, ins, outs, op.builtinOptions, custom))
    return FileGraph(
        tuple(operators),
        tensors,
        tuple(tensors[i] for i in graph.inputs),
        tuple(tensors[i] for i in graph.outputs),
    )


def check_identifier(content: bytes) -> None:
    """Raises ValueError unless the content begins like a `.tflite` file."""
    if len(content) < 16 or content[4:8] != b"TFL3":
        raise ValueError(f"content must be a .tflite file, got {content[:8]!r}...")


def layer_name(tensor_name: str) -> str:
    """Returns the Keras layer's name in a tensor's name, as far as it can be told.

    Example:
        >>> layer_name("model_1/stem_relu_1/Relu6;model_1/stem_1/convolution")
        'stem_relu'
    """
    parts = tensor_name.split(";")[0].split("/")
    if len(parts) < 2:
        return tensor_name
    return re.sub(r"_\d+$", "", parts[-2] if len(parts) > 2 else parts[0])


def _tensor(index: int, tensor: schema.TensorT, buffers: list[schema.BufferT]) -> TensorInfo:
    data = buffers[tensor.buffer].data
    constant = None if data is None or len(data) == 0 else np.asarray(data, np.uint8).tobytes()
    shape = () if tensor.shape is None else tuple(int(n) for n in tensor.shape)
    name = (tensor.name or b"").decode()
    return TensorInfo(index, name, _TYPE_NAMES.get(tensor.type, "?"), shape, constant)
