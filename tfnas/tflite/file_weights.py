"""Reads the kernels of a file as arrays, whatever form they have in the file.

float16 kernels pass a DEQUANTIZE operator before use, 4-bit kernels are packed two per byte, and
TFLite's sparse encoding omits zeros and puts a DENSIFY before most operators. Here all of them
become dense arrays of the stored numbers, in the layout of the file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.artifact import Artifact
from tfnas.tflite.flatbuffer import PRODUCT, OperatorInfo, TensorInfo, layer_name

_SECOND_INPUT = {  # operators whose kernel is their second input
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "TRANSPOSE_CONV",
    "CONV_3D",
    "CONV_3D_TRANSPOSE",
    "FULLY_CONNECTED",
}
_ANY_INPUT = {  # operators that may have a kernel at any input, or several
    "BATCH_MATMUL",
    "LSTM",
    "RNN",
    "SVDF",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "UNIDIRECTIONAL_SEQUENCE_RNN",
    "BIDIRECTIONAL_SEQUENCE_LSTM",
    "BIDIRECTIONAL_SEQUENCE_RNN",
}
_PACKED = {  # element type -> bits, signed
    "int4": (4, True),
    "uint4": (4, False),
    "int2": (2, True),
}


@dataclasses.dataclass(frozen=True, eq=False)
class FileKernel:
    """One kernel of a file.

    Args:
        layer: The Keras layer, by the tensor names in the file.
        operator: The operator that uses the kernel.
        tensor: The tensor in the file.
        values: The stored numbers, including the zeros that a sparse encoding omits, in the
            layout of the file: the last axis is the one that hardware reads along (input
            channels, for convolutions and dense layers).
    """

    layer: str
    operator: str
    tensor: TensorInfo
    values: np.ndarray = dataclasses.field(repr=False)

    @property
    def zeros(self) -> np.ndarray:
        """Returns an array in the shape of `values`: True where the weight is exactly 0.0."""
        points = np.array(self.tensor.zero_points or (0,))
        if len(points) > 1:
            shape = [1] * self.values.ndim
            shape[self.tensor.channel_axis] = -1
            points = points.reshape(shape)
        return self.values == points


def read_kernels(artifact: Artifact) -> Iterator[FileKernel]:
    """Yields the kernels of a file in the order of execution, each tensor once.

    Args:
        artifact: The file.

    Raises:
        ValueError: A kernel has an unknown element type or encoding.
    """
    for graph in artifact.graphs:
        seen = set()
        for op in graph.operators:
            for tensor in _kernel_inputs(op):
                constant = graph.constant_behind(tensor)
                if constant is None or len(constant.shape) < 2 or constant.index in seen:
                    continue
                seen.add(constant.index)
                layer = _layer_of_kernel(op, constant)
                yield FileKernel(layer, op.name, constant, dense_values(constant))


def _kernel_inputs(op: OperatorInfo) -> tuple[TensorInfo, ...]:
    if op.name in _SECOND_INPUT:
        return op.inputs[1:2]
    return op.inputs if op.name in _ANY_INPUT else ()


def _layer_of_kernel(op: OperatorInfo, constant: TensorInfo) -> str:
    """The layer that the kernel belongs to; an output's name may begin with its activation."""
    for name in (constant.name, op.outputs[0].name):
        parts = [part for part in name.rstrip(";0123456789").split(";") if PRODUCT.search(part)]
        if parts:
            return layer_name(parts[-1], op.counted)
    return op.layer


def dense_values(tensor: TensorInfo) -> np.ndarray:
    """Returns a constant's stored numbers in its shape; a sparse encoding is expanded.

    Args:
        tensor: A constant of a file.

    Raises:
        ValueError: It has an unknown element type or encoding.
    """
    values = _stored_values(tensor)
    try:
        if tensor.sparsity is not None:
            return _expand_sparse(values, tensor.shape, tensor.sparsity)
        return values[: int(np.prod(tensor.shape))].reshape(tensor.shape)
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"tensor {tensor.name!r} must hold {tensor.dtype} numbers of shape {tensor.shape}, "
            f"got {len(values)} numbers that don't fit"
        ) from error


def _stored_values(tensor: TensorInfo) -> np.ndarray:
    """The numbers that the file stores for a constant, as a flat array."""
    data = tensor.constant or b""
    if tensor.dtype in _PACKED:
        bits, signed = _PACKED[tensor.dtype]
        shifts = np.arange(0, 8, bits)  # the lowest bits come first
        parts = (np.frombuffer(data, np.uint8)[:, None] >> shifts) & (2**bits - 1)
        numbers = parts.ravel().astype(np.int8)
        return (
            np.where(numbers >= 2 ** (bits - 1), numbers - 2**bits, numbers) if signed else numbers
        )
    try:
        return np.frombuffer(data, np.sctypeDict[tensor.dtype])
    except KeyError as error:
        raise ValueError(f"tensor {tensor.name!r} must hold numbers, got {tensor.dtype}") from error


def _expand_sparse(
    values: np.ndarray, shape: tuple[int, ...], sparsity: schema.SparsityParametersT
) -> np.ndarray:
    """Decodes TFLite's sparse encoding: a tree with one level per dimension.

    A level is dense (every index has a child) or compressed (`arraySegments` has the number of
    children of each node, `arrayIndices` their indices). A block within dimension d is a level
    of its own, numbered after the dimensions; the index in d is then outer * block + inner.
    """
    levels = sparsity.dimMetadata
    indices: dict[int, np.ndarray] = {}  # dimension -> index of each node of this level
    sizes = {}
    nodes = 1
    for dimension, level in zip(map(int, sparsity.traversalOrder), levels, strict=True):
        if level.format == schema.DimensionType.DENSE:
            children = np.full(nodes, level.denseSize)
            index = np.tile(np.arange(level.denseSize), nodes)
        else:
            children = np.diff(np.asarray(level.arraySegments.values, np.int64))
            index = np.asarray(level.arrayIndices.values, np.int64)
        indices = {d: np.repeat(outer, children) for d, outer in indices.items()}
        indices[dimension] = index
        sizes[dimension] = level.denseSize
        nodes = len(index)
    blocks = () if sparsity.blockMap is None else sparsity.blockMap
    for block, dimension in enumerate(map(int, blocks), len(shape)):
        indices[dimension] = indices[dimension] * sizes[block] + indices[block]
    dense = np.zeros(shape, values.dtype)
    dense[tuple(indices[d] for d in range(len(shape)))] = values
    return dense
