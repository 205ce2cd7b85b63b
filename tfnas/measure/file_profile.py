"""Static cost of a `.tflite` file: operators, bytes of weights, multiply-accumulates and memory.

Shapes are those of one run, of one example where the file takes any number: sizes that depend on
others are known then. A file that can't be run here, such as one with custom operators, has the
shapes that it stores, and operators of open sizes are not counted.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfnas.measure.counted_profile import CountedProfile
from tfnas.table import TextTable
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.delegation import shapes_of_run
from tfnas.tflite.flatbuffer import FileGraph, TensorInfo
from tfnas.tflite.operator_layers import layer_of
from tfnas.tflite.operator_macs import operator_macs

_BITS = {"int4": 4, "uint4": 4, "int2": 2, "bool": 8, "complex64": 64, "bfloat16": 16}


@dataclasses.dataclass(frozen=True)
class OperatorProfile:
    """Cost of one operator of a file.

    Args:
        name: TFLite's name of the operator, such as "CONV_2D".
        layer: Path of the Keras layer that it comes from, by the names in the file.
        output_shape: Shape of its first output; None where it is not known.
        weight_bytes: Bytes of the constants that it reads, counted at their first reader.
        macs: Multiply-accumulates of one run; None if they can't be counted.
    """

    name: str
    layer: str
    output_shape: tuple[int, ...] | None
    weight_bytes: int
    macs: int | None


@dataclasses.dataclass(frozen=True, repr=False)
class FileProfile(CountedProfile):
    """Cost of one run of a `.tflite` file. Prints as a table of its operators.

    Args:
        operators: The operators of the main graph, in the order of execution.
        size: Bytes of the file.
        weight_bytes: Bytes of constants by their element type, such as "int8".
        macs: Multiply-accumulates of all operators that can be counted: a lower bound where some
            are `uncounted`.
        peak_activation_bytes: Most bytes of activations that are alive at once if operators run
            one after the other, none in place; None where some sizes are not known. An
            interpreter's arena has gaps and scratch buffers besides.
    """

    operators: tuple[OperatorProfile, ...]
    size: int
    weight_bytes: dict[str, int]
    macs: int
    peak_activation_bytes: int | None

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Operators whose multiply-accumulates are not known, with their layer."""
        names = (f"{op.name} ({op.layer})" for op in self.operators if op.macs is None)
        return tuple(dict.fromkeys(names))

    def summary(self) -> str:
        """Returns the totals of the file as one line."""
        least = "at least " if self.uncounted else ""
        kinds = self.weight_bytes.items()
        weights = ", ".join(f"{size:,} {kind}" for kind, size in kinds) or "none"
        peak = self.peak_activation_bytes
        memory = "unknown" if peak is None else f"{peak:,} bytes"
        return (
            f"{self.size:,} bytes, of these weights {weights}; {least}{self.macs:,} MACs, "
            f"peak activations {memory}"
        )

    def headers(self) -> list[str]:
        """Returns the titles of the columns."""
        return ["operator", "layer", "output", "bytes of weights", "MACs"]

    def rows(self) -> list[list[str]]:
        """Returns one row per operator, in the order of execution."""
        return [
            [
                op.name,
                op.layer,
                "unknown" if op.output_shape is None else "x".join(map(str, op.output_shape)),
                f"{op.weight_bytes:,}",
                "not counted" if op.macs is None else f"{op.macs:,}",
            ]
            for op in self.operators
        ]

    def tables(self) -> list[TextTable]:
        """Returns the table of the operators, and of their kinds."""
        counts = Counter(op.name for op in self.operators)
        macs: Counter[str] = Counter()
        for op in self.operators:
            macs[op.name] += op.macs or 0
        kinds = [[name, str(count), f"{macs[name]:,}"] for name, count in counts.most_common()]
        return [
            TextTable(self.headers(), self.rows(), right=3),
            TextTable(["operator", "number", "MACs"], kinds, right=1),
        ]


def profile_file(file: Artifact, columns: Sequence[Any] | None = None) -> FileProfile:
    """Counts the operators, weights, multiply-accumulates and memory of a `.tflite` file.

    Args:
        file: The file.
        columns: Arrays (examples, ...), one for each input in the file's order, whose shapes tell
            the sizes that the file leaves open; None: it leaves none but the batch.

    Returns:
        The cost of each operator, and totals.

    Raises:
        ValueError: The file leaves sizes open, or the data has other inputs.
    """
    graphs = file.graphs
    main = graphs[0]
    shapes = shapes_of_run(file, _input_shapes(main, columns))
    seen: set[bytes] = set()
    operators = []
    for op in main.operators:
        weights = [t.constant for t in op.inputs if t.constant and t.constant not in seen]
        seen.update(weights)
        operators.append(
            OperatorProfile(
                op.name,
                layer_of(main, op),
                shapes.get(op.outputs[0].index) if op.outputs else (),
                sum(map(len, weights)),
                operator_macs(op, main, shapes, graphs),
            )
        )
    return FileProfile(
        tuple(operators),
        file.size,
        _weight_bytes(graphs),
        sum(op.macs or 0 for op in operators),
        _peak(main, shapes),
    )


def _input_shapes(main: FileGraph, columns: Sequence[Any] | None) -> list[tuple[int, ...]]:
    if columns is None:
        for tensor in main.inputs:
            if -1 in tensor.signature[1:]:
                raise ValueError(
                    f"file must have inputs of known shape, got {tensor.signature} for "
                    f"{tensor.name!r}: data with inputs of one shape tells the sizes"
                )
        return [tensor.shape for tensor in main.inputs]
    if len(columns) != len(main.inputs):
        raise ValueError(f"data must have {len(main.inputs)} inputs, got {len(columns)}")
    shapes = [(1, *np.shape(column)[1:]) for column in columns]
    for tensor, shape in zip(main.inputs, shapes, strict=True):
        stated = tensor.signature or tensor.shape
        fits = len(stated) == len(shape) and all(
            a in (-1, b) for a, b in zip(stated[1:], shape[1:], strict=True)
        )
        if not fits:
            raise ValueError(
                f"data must fit input {tensor.name!r} of shape {stated}, got {shape[1:]} an example"
            )
    return [
        shape if -1 in tensor.signature else tensor.shape
        for tensor, shape in zip(main.inputs, shapes, strict=True)
    ]


def _bytes_of(tensor: TensorInfo, shape: tuple[int, ...]) -> int:
    try:
        bits = _BITS.get(tensor.dtype) or 8 * np.dtype(tensor.dtype).itemsize
    except TypeError:  # strings and resources
        return 0
    return -(-bits * int(np.prod(shape, dtype=np.int64)) // 8)


def _weight_bytes(graphs: list[FileGraph]) -> dict[str, int]:
    """Bytes of constants by type; a buffer that several tensors share counts once."""
    seen: set[tuple[str, bytes]] = set()
    totals: Counter[str] = Counter()
    for tensor in (tensor for graph in graphs for tensor in graph.tensors):
        if tensor.constant is not None and (tensor.dtype, tensor.constant) not in seen:
            seen.add((tensor.dtype, tensor.constant))
            totals[tensor.dtype] += len(tensor.constant)
    return dict(totals.most_common())


def _peak(main: FileGraph, shapes: dict[int, tuple[int, ...]]) -> int | None:
    """Most bytes alive at once: each activation lives from its operator to its last reader."""
    last = {t.index: n for n, op in enumerate(main.operators) for t in op.inputs}
    last.update({t.index: len(main.operators) for t in main.outputs})
    alive = {t.index: t for t in main.inputs}
    peak = 0
    for number, op in enumerate(main.operators):
        alive.update({t.index: t for t in op.outputs})
        if any(index not in shapes for index in alive):
            return None
        peak = max(peak, sum(_bytes_of(t, shapes[index]) for index, t in alive.items()))
        alive = {index: t for index, t in alive.items() if last.get(index, number) > number}
    return peak
