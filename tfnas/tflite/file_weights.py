"""A file's kernels as arrays, whatever form they have in the file.

float16 kernels stand behind a DEQUANTIZE, 4-bit ones are packed two a byte, and TFLite's
sparse encoding leaves zeros out and puts a DENSIFY in front of most operators. Here all
of them become dense arrays in the file's layout, of the numbers that are stored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.artifact import Artifact
from tfnas.tflite.flatbuffer import PRODUCT, OperatorInfo, TensorInfo, layer_name, read_graphs

_SECOND_INPUT = {
    *("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "CONV_3D", "CONV_3D_TRANSPOSE"),
    "FULLY_CONNECTED",
}
_ANY_INPUT = {
    *("BATCH_MATMUL", "LSTM", "RNN", "SVDF", "UNIDIRECTIONAL_SEQUENCE_LSTM"),
    *("UNIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_LSTM"),
    "BIDIRECTIONAL_SEQUENCE_RNN",
}
_PACKED = {"int4": (4, True), "uint4": (4, False), "int2": (2, True)}


@dataclasses.dataclass(frozen=True, eq=False)
class FileKernel:
    """One kernel as the file holds it.

    Args:
        layer: The Keras layer, as far as the names in the file tell.
        operator: The operator that takes the kernel.
        tensor: The tensor in the file.
        values: The stored numbers, with the zeros that a sparse encoding leaves out; in
            the file's layout, so that the innermost axis is the one that hardware reads
            along (input channels, for convolutions and dense layers).
    """

    layer: str
    operator: str
    tensor: TensorInfo
    values: np.ndarray = dataclasses.field(repr=False)

    @property
    def zeros(self) -> np.ndarray:
        """True where the weight is exactly 0.0; the shape of `values`."""
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
        ValueError: A kernel has an element type or an encoding that can't be read.
    """
    for graph in read_graphs(artifact.content):
        seen = set()
        for op in graph.operators:
            for tensor in _candidates(op):
                constant = graph.constant_behind(tensor)
                if constant is None or len(constant.shape) < 2 or constant.index in seen:
                    continue
                seen.add(constant.index)
                yield FileKernel(_layer(op, constant), op.name, constant, dense_values(constant))


def _candidates(op: OperatorInfo) -> tuple[TensorInfo, ...]:
    if op.name in _SECOND_INPUT:
        return op.inputs[1:2]
    return op.inputs if op.name in _ANY_INPUT else ()


def _layer(op: OperatorInfo, constant: TensorInfo) -> str:
    """The layer that owns the kernel; an output is named after its activation first."""
    for name in (constant.name, op.outputs[0].name):
        parts = [part for part in name.rstrip(";0123456789").split(";") if PRODUCT.search(part)]
        if parts:
            return layer_name(parts[-1].replace("/Tensordot/", "/"))
    return op.layer


def dense_values(tensor: TensorInfo) -> np.ndarray:
    """Returns a constant's stored numbers in its shape, with the zeros that it leaves out.

    Args:
        tensor: A constant of a file.

    Raises:
        ValueError: Its element type or its encoding can't be read.
    """
    values = _stored(tensor)
    try:
        if tensor.sparsity is not None:
            return _scatter(values, tensor.shape, tensor.sparsity)
        return values[: int(np.prod(tensor.shape))].reshape(tensor.shape)
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"tensor {tensor.name!r} must hold {tensor.dtype} numbers of shape {tensor.shape}, "
            f"got {len(values)} numbers that don't fit"
        ) from error


def _stored(tensor: TensorInfo) -> np.ndarray:
    """The numbers that the file holds for a constant, one after the other."""
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


def _scatter(
    values: np.ndarray, shape: tuple[int, ...], sparsity: schema.SparsityParametersT
) -> np.ndarray:
    """Decodes TFLite's sparse encoding: a tree with one level a dimension.

    A level is dense (every index has a child) or compressed (`arraySegments` says how many
    children each node has, `arrayIndices` which). A block inside of dimension d is a level
    of its own, numbered after the dimensions; d's index is then outer * block + inner.
    """
    levels = sparsity.dimMetadata
    places: dict[int, np.ndarray] = {}  # dimension -> index of each node of this level
    sizes = {}
    nodes = 1
    for dimension, level in zip(map(int, sparsity.traversalOrder), levels, strict=True):
        if level.format == schema.DimensionType.DENSE:
            children = np.full(nodes, level.denseSize)
            index = np.tile(np.arange(level.denseSize), nodes)
        else:
            children = np.diff(np.asarray(level.arraySegments.values, np.int64))
            index = np.asarray(level.arrayIndices.values, np.int64)
        places = {d: np.repeat(place, children) for d, place in places.items()}
        places[dimension] = index
        sizes[dimension] = level.denseSize
        nodes = len(index)
    blocks = () if sparsity.blockMap is None else sparsity.blockMap
    for block, dimension in enumerate(map(int, blocks), len(shape)):
        places[dimension] = places[dimension] * sizes[block] + places[block]
    dense = np.zeros(shape, values.dtype)
    dense[tuple(places[d] for d in range(len(shape)))] = values
    return dense
