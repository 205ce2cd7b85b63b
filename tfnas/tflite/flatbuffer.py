"""Reads the subgraphs of a `.tflite` file as plain records, from its flatbuffer.

The interpreter does not expose the options of operators, the element type of 4-bit weights, or
which tensors are constants. So the file itself is read with the schema in ai-edge-litert.
:func:`unpack` and :func:`pack` change a file with the same schema.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Container, Iterable, Sequence
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.file_validation import check_file

_TYPE_NAMES = {v: k.lower() for k, v in vars(schema.TensorType).items() if not k.startswith("_")}
_OP_NAMES = {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}
# End of the name of an operation that multiplies by a kernel.
PRODUCT = re.compile(r"/(?:\w*[Cc]onv\w*|depthwise|MatMul)\d*$")
_COUNTER = re.compile(r"_(\d+)$")  # that Keras 3 puts behind the name of each layer
_STEPS = re.compile(
    r"(?:Tensordot|moments|batchnorm|einsum|zeros|ones|while|cond|first_state|no_outputs)(?:_\d+)?"
)
_ALIGNMENT = 16  # bytes, for a buffer's data, by the schema


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One tensor of the file.

    Args:
        index: Index of the tensor in its subgraph.
        name: Name of the tensor.
        dtype: Element type by the schema, such as "int4".
        shape: Shape.
        constant: The bytes that the file stores for it; None for an activation.
        zero_points: The quantized integers that stand for 0.0, one for the tensor or one for
            each channel; empty for floats.
        channel_axis: The dimension of the channels, for zero points and scales per channel.
        scales: Quantization scales, one for the tensor or one for each channel; empty for floats
            and for scales per block.
        sparsity: The sparse encoding of a constant, as in the schema; None for a dense one.
        variable: Whether it keeps its value from one run to the next, as a state.
        signature: The shape with -1 for sizes that the file leaves open; empty where it has all.
    """

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    constant: bytes | None = dataclasses.field(repr=False)
    zero_points: tuple[int, ...] = ()
    channel_axis: int = 0
    scales: tuple[float, ...] = ()
    sparsity: schema.SparsityParametersT | None = dataclasses.field(
        default=None, repr=False, compare=False
    )
    variable: bool = False
    signature: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class OperatorInfo:
    """One operator of the file.

    Args:
        name: TFLite's name of the operator, such as "CONV_2D", or the name of a custom operator.
        inputs: Input tensors, without absent optional ones.
        outputs: Output tensors.
        options: The options object of the schema, or None.
        custom: Whether it is a custom operator, not one of TFLite's.
        counted: Whether names of layers in the file end in a counter, as those of Keras 3.
    """

    name: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    options: object = dataclasses.field(repr=False)
    custom: bool = False
    counted: bool = True

    @property
    def layer(self) -> str:
        """Returns the Keras layer that the operator was converted from.

        It is in the name of the output; where that is an output of the file, with a name of the
        converter's, in the name of the kernel.
        """
        if not self.outputs:
            return ""
        name = self.outputs[0].name
        kernels = [t.name for t in self.inputs if t.constant is not None and is_product(t.name)]
        scoped = name if "/" in name or not kernels else kernels[0]
        return layer_name(scoped, self.counted)


@dataclasses.dataclass(frozen=True)
class FileGraph:
    """The first subgraph of a `.tflite` file.

    Args:
        operators: In the order of execution.
        tensors: All tensors by index.
        inputs: The graph's inputs.
        outputs: The graph's outputs.
    """

    operators: tuple[OperatorInfo, ...]
    tensors: tuple[TensorInfo, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    def constant_behind(self, tensor: TensorInfo) -> TensorInfo | None:
        """Returns the stored constant of a weight tensor, past DEQUANTIZE and DENSIFY.

        float16 weights pass a DEQUANTIZE operator before use, sparse ones a DENSIFY.

        Args:
            tensor: A tensor of this graph.

        Returns:
            The constant; None for a tensor that depends on the inputs.
        """
        while tensor.constant is None:
            producer = self._producers.get(tensor.index)
            if producer is None or producer.name not in ("DEQUANTIZE", "DENSIFY"):
                return None
            tensor = producer.inputs[0]
        return tensor

    def producer_of(self, tensor: TensorInfo) -> OperatorInfo | None:
        """Returns the operator that computes a tensor; None of an input or a constant.

        Args:
            tensor: A tensor of this graph.
        """
        return self._producers.get(tensor.index)

    @functools.cached_property
    def _producers(self) -> dict[int, OperatorInfo]:
        return {tensor.index: op for op in self.operators for tensor in op.outputs}


def read_graph(content: bytes) -> FileGraph:
    """Reads the first subgraph of a `.tflite` file, its main graph.

    Args:
        content: The file's bytes.

    Returns:
        Its operators and tensors.

    Raises:
        ValueError: The content is not a valid `.tflite` file.
    """
    return read_graphs(content)[0]


def read_graphs(content: bytes) -> list[FileGraph]:
    """Reads all subgraphs: the main graph, then the bodies of loops and branches.

    Args:
        content: The file's bytes.

    Returns:
        The operators and tensors of each, the main graph first.

    Raises:
        ValueError: The content is not a valid `.tflite` file.
    """
    check_file(content)
    return graphs_of(content)


def graphs_of(content: bytes) -> list[FileGraph]:
    """Returns what :func:`read_graphs` does, of a file that is known to be valid.

    Args:
        content: The file's bytes, validated before (:func:`check_file`).
    """
    model = unpack(content)
    for buffer in model.buffers or ():  # large ones may lie after the flatbuffer
        if buffer.offset > 1:
            end = buffer.offset + buffer.size
            buffer.data = np.frombuffer(content[buffer.offset : end], np.uint8)
    return [_graph(model, graph) for graph in model.subgraphs]


def _graph(model: schema.ModelT, graph: schema.SubGraphT) -> FileGraph:
    tensors = tuple(_tensor(i, t, model.buffers) for i, t in enumerate(graph.tensors or ()))
    counted = names_are_counted(tensor.name for tensor in tensors)
    operators = []
    for op in graph.operators or ():
        code = model.operatorCodes[op.opcodeIndex]
        builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
        custom = builtin == schema.BuiltinOperator.CUSTOM
        name = (
            (code.customCode or b"").decode() if custom else _OP_NAMES.get(builtin, f"OP_{builtin}")
        )
        ins = tuple(tensors[i] for i in integers(op.inputs) if i >= 0)
        outs = tuple(tensors[i] for i in integers(op.outputs))
        operators.append(OperatorInfo(name, ins, outs, op.builtinOptions, custom, counted))
    return FileGraph(
        tuple(operators),
        tensors,
        tuple(tensors[i] for i in integers(graph.inputs)),
        tuple(tensors[i] for i in integers(graph.outputs)),
    )


def unpack(content: bytes) -> schema.ModelT:
    """Returns a file as mutable objects of the schema; :func:`pack` writes them again.

    Args:
        content: The file's bytes, validated before (:func:`check_file`).
    """
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))


def pack(model: schema.ModelT, builder: flatbuffers.Builder | None = None) -> bytes:
    """Returns the file of a model's objects, with its buffers aligned as the schema requires.

    Args:
        model: The objects. Only the class of its buffers is changed.
        builder: A new builder that writes the file. None: flatbuffers' own.

    Raises:
        ValueError: A buffer lies after the flatbuffer.
    """
    operators = [op for graph in model.subgraphs for op in graph.operators or ()]
    behind = [buffer.offset for buffer in model.buffers]
    behind += [op.largeCustomOptionsOffset for op in operators]
    if any(offset > 1 for offset in behind):
        raise ValueError("content must have all buffers in its flatbuffer, got some behind it")
    model.buffers = [_AlignedBuffer(buffer.data) for buffer in model.buffers]
    builder = flatbuffers.Builder(1024) if builder is None else builder
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def kind_of(model: Any, op: Any) -> int:
    """Returns the number of an operator's kind.

    Args:
        model: The objects of a file.
        op: One of its operators.
    """
    code = model.operatorCodes[op.opcodeIndex]
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


class _AlignedBuffer(schema.BufferT):
    """A buffer with the alignment of the schema; the generated code aligns to 4 bytes only.

    Weights are read in place, and some instructions fail or are slow at other addresses.
    """

    def Pack(self, builder: Any) -> Any:
        data = None
        if self.data is not None:
            payload = np.asarray(self.data, np.uint8).tobytes()
            builder.StartVector(1, len(payload), _ALIGNMENT)
            builder.head -= len(payload)
            builder.Bytes[builder.head : builder.head + len(payload)] = payload
            data = builder.EndVector()
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


def is_product(operation: str) -> bool:
    """Returns whether the scoped name of an operation is that of a product with a kernel.

    Example:
        >>> is_product("model/conv1/Conv2D"), is_product("model/relu/Relu")
        (True, False)

    Args:
        operation: The name, perhaps with the converter's number at its end.
    """
    return PRODUCT.search(operation.rstrip(";0123456789")) is not None


def names_are_counted(tensor_names: Iterable[str]) -> bool:
    """Returns whether layers' names in a file end in counters of Keras 3, as "dense_1_1".

    Keras 2 writes layers' names as they are, and calls a convolution "Conv2D". Only names of
    products with kernels are looked at, whose scope is always a layer.

    Example:
        >>> names_are_counted(["functional_1/dense_1/MatMul", "functional_1/dense_1_1/MatMul"])
        True
        >>> names_are_counted(["model/dense/MatMul", "model/dense_1/MatMul"])
        False

    Args:
        tensor_names: The names of a file's tensors.
    """
    operations = [name for names in tensor_names for name in names.split(";") if is_product(name)]
    if any(name.rstrip(";0123456789").endswith("/Conv2D") for name in operations):
        return False
    counters = [_last_counter(name.split("/")[1:-1]) for name in operations if "/" in name]
    found = [counter for counter in counters if counter is not None]
    return not counters or (len(found) == len(counters) and "1" in found)


def _last_counter(scopes: Sequence[str]) -> str | None:
    """The counter of the innermost scope that has one, as "dense_1" in "dense_1/Tensordot"."""
    found = [match[1] for scope in scopes if (match := _COUNTER.search(scope))]
    return found[-1] if found else None


def layer_name(tensor_name: str, counted: bool = True) -> str:
    """Returns the name of the Keras layer in a tensor's name, or the name itself.

    Example:
        >>> layer_name("model_1/stem_relu_1/Relu6;model_1/stem_1/convolution")
        'stem_relu'
        >>> layer_name("model/dense_1/Tensordot/MatMul", counted=False)
        'dense_1'

    Args:
        tensor_name: Names of operations with their scopes, separated by ";".
        counted: Whether layers' names end in a counter; see :func:`names_are_counted`.
    """
    if "/" not in tensor_name.split(";")[0]:
        return tensor_name
    return layer_scopes(tensor_name, counted)[-1]


def layer_scopes(tensor_name: str, counted: bool = True) -> list[str]:
    """Returns the names of the layers around an operation, the outermost first.

    The model itself, and steps of TensorFlow's own in a layer, are left out.

    Example:
        >>> layer_scopes("model_1/attention_1/key_1/Tensordot/MatMul")
        ['attention', 'key']
        >>> layer_scopes("model/encoder/dense_1/moments/mean", counted=False)
        ['encoder', 'dense_1']

    Args:
        tensor_name: Names of operations with their scopes, separated by ";".
        counted: Whether layers' names end in a counter; see :func:`names_are_counted`.
    """
    parts = tensor_name.split(";")[0].split("/")
    scopes = parts[1:-1] or parts[:1]
    while len(scopes) > 1 and _STEPS.fullmatch(scopes[-1]):
        scopes.pop()
    return [_COUNTER.sub("", scope) if counted else scope for scope in scopes]


def innermost(scopes: Sequence[str], names: Container[str], counted: bool = True) -> str | None:
    """Returns the last part of a scoped name that is a known name, None if there is none.

    Example:
        >>> innermost(["model_1", "gelu_1", "Erf"], {"gelu"})
        'gelu'

    Args:
        scopes: The parts of the scoped name.
        names: The known names.
        counted: Whether parts may end in a counter ("_1"); the part without it is tried first.
    """
    for part in reversed(scopes):
        for name in (re.sub(r"_\d+$", "", part), part) if counted else (part,):
            if name in names:
                return name
    return None


def _tensor(index: int, tensor: schema.TensorT, buffers: list[schema.BufferT]) -> TensorInfo:
    data = buffers[tensor.buffer].data
    constant = None if data is None or len(data) == 0 else np.asarray(data, np.uint8).tobytes()
    shape = integers(tensor.shape)
    name = (tensor.name or b"").decode()
    quantization = tensor.quantization
    zero_points = () if quantization is None else integers(quantization.zeroPoint)
    return TensorInfo(
        index,
        name,
        _TYPE_NAMES.get(tensor.type, "?"),
        shape,
        constant,
        zero_points,
        quantization.quantizedDimension if zero_points else 0,
        ()
        if quantization is None
        else tuple(map(float, () if quantization.scale is None else quantization.scale)),
        tensor.sparsity,
        bool(tensor.isVariable),
        integers(tensor.shapeSignature),
    )


def integers(vector: np.ndarray | list[int] | None) -> tuple[int, ...]:
    """Returns a vector of the schema as Python integers; an absent one is empty."""
    return () if vector is None else tuple(int(n) for n in vector)
