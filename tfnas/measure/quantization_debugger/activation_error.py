"""Runs a float and a quantized file of one model side by side and sums up the differences."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.artifact import Artifact
from tfnas.tflite.file_runs import BatchRefused, fixed_batch
from tfnas.tflite.flatbuffer import TensorInfo
from tfnas.tflite.tensor_details import TensorDetails

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

MAX_NOISE = 1e12  # relative noise if the signal is all zeros
_QUANTIZED = ("int2", "int4", "uint4", "int8", "uint8", "int16")
_MAX_BATCH = 64
_MAX_ELEMENTS = 2**23  # of one file's tensors in memory at once


def sorted_inputs(artifact: Artifact) -> list[TensorDetails]:
    """Returns a file's inputs sorted by name."""
    return sorted(artifact.inputs, key=lambda tensor: tensor.name)


class Scales:
    """The quantization scales of a file's tensors.

    Args:
        artifact: The file.
    """

    def __init__(self, artifact: Artifact) -> None:
        self._tensors = schema.Model.GetRootAs(artifact.content, 0).Subgraphs(0)

    def in_blocks(self, tensor: TensorInfo) -> bool:
        """Whether a tensor is quantized blockwise."""
        found = self._tensors.Tensors(tensor.index).Quantization()
        kind = schema.QuantizationDetails.BlockwiseQuantization
        return found is not None and found.DetailsType() == kind

    def of(self, tensor: TensorInfo) -> np.ndarray:
        """Returns a tensor's scale: a scalar, or an array that broadcasts to its shape.

        Raises:
            ValueError: The file has no scale for it.
        """
        if not tensor.scales:
            raise ValueError(f"tensor {tensor.name!r} must have a scale, got none")
        return _by_channel(tensor, np.array(tensor.scales, np.float64))

    def dequantized(self, tensor: TensorInfo, values: np.ndarray) -> np.ndarray:
        """Returns the dequantized values of a tensor; floats and plain integers are kept.

        Raises:
            ValueError: The file has no scale for it.
        """
        if tensor.dtype not in _QUANTIZED:
            return values.astype(np.float64)
        zero = _by_channel(tensor, np.array(tensor.zero_points or (0,), np.float64))
        return (values.astype(np.float64) - zero) * self.of(tensor)


def _by_channel(tensor: TensorInfo, values: np.ndarray) -> np.ndarray:
    shape = [1] * len(tensor.shape)
    if len(values) > 1:
        shape[tensor.channel_axis] = -1
    return values.reshape(shape if len(values) > 1 else ())


@dataclasses.dataclass
class Sums:
    """Sums over all values of a pair of tensors.

    Args:
        signal: Sum of the squares of the float values.
        noise: Sum of the squares of the differences.
        grid: Sum of the squares of the rounding errors of the float values on the quantized
            tensor's grid.
        outside: Number of float values outside the range of the quantized tensor.
        count: Number of values.
        examples: Number of examples.
        changed: Number of examples with another argmax.
    """

    signal: float = 0.0
    noise: float = 0.0
    grid: float = 0.0
    outside: int = 0
    count: int = 0
    examples: int = 0
    changed: int = 0

    @classmethod
    def total(cls, parts: Iterable[Sums]) -> Sums:
        """Returns the sums over several pairs of tensors."""
        rows = [dataclasses.astuple(part) for part in parts]
        return cls(*(sum(column) for column in zip(*rows, strict=True)))

    def relative(self, squares: float) -> float:
        """Returns a sum of squares divided by the signal's."""
        if not squares:
            return 0.0
        return min(squares / max(self.signal, 1e-300), MAX_NOISE)


class TensorPair:
    """A tensor of the float file and its counterpart in the quantized one, with their sums.

    Args:
        reference: The tensor of the float file.
        tensor: The tensor of the quantized file.
        scales: The scales of the quantized file.
    """

    def __init__(self, reference: TensorInfo, tensor: TensorInfo, scales: Scales) -> None:
        self.reference, self.tensor = reference, tensor
        self.sums, self.fault = Sums(), ""
        self._scales = scales
        step = scales.of(tensor) if tensor.zero_points and tensor.dtype in _QUANTIZED else None
        # A scale of 0 is that of a tensor of zeros.
        self._step = None if step is None or not step.all() else step

    def add(self, reference: _Run, other: _Run) -> None:
        """Adds the current values of both tensors; a fault excludes this pair alone."""
        try:
            x = reference.value(self.reference).astype(np.float64)
            y = self._scales.dequantized(self.tensor, other.value(self.tensor))
        except (ValueError, RuntimeError) as error:
            self.fault = f"can't be read while the file runs: {str(error).splitlines()[0]}"
            return
        if x.shape != y.shape:
            self.fault = f"is {x.shape} in the float file and {y.shape} in the other"
        elif not (np.isfinite(x).all() and np.isfinite(y).all()):
            self.fault = "is not finite"
        else:
            self._add(x, y)

    def _add(self, x: np.ndarray, y: np.ndarray) -> None:
        sums = self.sums
        sums.signal += float(np.square(x).sum())
        sums.noise += float(np.square(x - y).sum())
        sums.count += x.size
        if x.ndim == 2 and x.shape[1] > 1:
            sums.examples += len(x)
            sums.changed += int((x.argmax(axis=1) != y.argmax(axis=1)).sum())
        if self._step is not None:
            limits = np.iinfo(self.tensor.dtype)
            scaled = x / self._step + self.tensor.zero_points[0]
            rounded = np.clip(np.round(scaled), limits.min, limits.max)
            sums.grid += float(np.square((rounded - scaled) * self._step).sum())
            slack = 1 + 1e-3  # a softmax of 1.0 is one step outside by design
            sums.outside += int((scaled < limits.min - slack).sum())
            sums.outside += int((scaled > limits.max + slack).sum())


def run_both(
    reference: Artifact,
    artifact: Artifact,
    columns: Sequence[np.ndarray],
    pairs: Sequence[TensorPair],
    keep_all: bool = True,
) -> None:
    """Runs both files on the same examples and adds up the sums of the pairs.

    Args:
        reference: The float file.
        artifact: The quantized file.
        columns: The inputs as floats, in the order of :func:`sorted_inputs`.
        pairs: The pairs of tensors; outputs only if `keep_all` is false.
        keep_all: Whether the interpreter keeps the values of all tensors.

    Raises:
        RuntimeError: The interpreter can't run a file.
    """
    examples = len(columns[0])
    elements = sum(int(np.prod(t.shape)) for t in reference.graph.tensors if t.constant is None)
    batch = min(_MAX_BATCH, examples, max(1, _MAX_ELEMENTS // max(elements, 1)))
    fixed = {fixed_batch(file.inputs) for file in (reference, artifact)} - {None}
    if fixed:  # only whole batches: rows that fill one up would count twice
        batch = max(size for size in fixed if size is not None)
        if len(fixed) > 1 or examples < batch:
            raise RuntimeError(
                f"x must fill a batch that both files take, got {examples} examples for files "
                f"that fix {sorted(map(str, fixed))}"
            )
        columns = [column[: examples - examples % batch] for column in columns]
    try:
        _run(reference, artifact, columns, pairs, keep_all, batch)
    except (RuntimeError, BatchRefused):  # an operator fixes the batch size: one example at a time
        for pair in pairs:
            pair.sums, pair.fault = Sums(), ""
        if fixed:
            raise
        _run(reference, artifact, columns, pairs, keep_all, 1)


def _run(
    reference: Artifact,
    artifact: Artifact,
    columns: Sequence[np.ndarray],
    pairs: Sequence[TensorPair],
    keep_all: bool,
    batch: int,
) -> None:
    runs = _Run(reference, keep_all), _Run(artifact, keep_all)
    for start in range(0, len(columns[0]), batch):
        for run in runs:
            run.feed([column[start : start + batch] for column in columns])
        for pair in pairs:
            if not pair.fault:
                pair.add(*runs)


class _Run:
    """A file's interpreter, rebuilt when the batch size changes."""

    def __init__(self, artifact: Artifact, keep_all: bool) -> None:
        self._artifact, self._keep_all = artifact, keep_all
        self._size, self._state = 0, artifact.state
        self._interpreter: Interpreter | None = None

    def feed(self, columns: Sequence[np.ndarray]) -> None:
        """Runs the file on a batch."""
        inputs = sorted_inputs(self._artifact)
        if self._interpreter is not None and self._state == "tensors":
            self._interpreter.reset_all_variables()
        other_size = len(columns[0]) != self._size
        if self._interpreter is None or other_size or self._state == "variables":
            self._size = len(columns[0])
            order = [inputs.index(tensor) for tensor in self._artifact.inputs]
            self._interpreter = self._artifact.interpreter(
                xnnpack=False, shapes=[columns[i].shape for i in order], keep_all=self._keep_all
            )
        for tensor, block in zip(inputs, columns, strict=True):
            self._interpreter.set_tensor(tensor.index, tensor.quantize(block))
        self._interpreter.invoke()
        for tensor in self._artifact.outputs:
            out = self._interpreter.get_tensor(tensor.index)
            if self._size > 1 and (out.ndim == 0 or len(out) != self._size):
                raise BatchRefused(tensor.name)

    def value(self, tensor: TensorInfo) -> np.ndarray:
        """Returns the current value of a tensor."""
        if self._interpreter is None:
            raise RuntimeError("file must be fed before a value is read, got no example yet")
        value: np.ndarray = self._interpreter.get_tensor(tensor.index)
        return value
