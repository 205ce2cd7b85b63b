"""Runs a file in TFLite Micro on this machine, and measures or plans its memory.

The optional package tflite-micro has the interpreter of microcontrollers with its reference
kernels. The interpreter has one block of memory, the arena: activations and scratch buffers share
its head over time, and persistent data is at its tail. The memory of the activations can be
planned from the file alone; the rest depends on the kernels and on the width of pointers, so a
32-bit device needs less than is measured here.
"""

from __future__ import annotations

import bisect
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.data.reading import arrays
from tfnas.optional import require
from tfnas.runtime.external_programs import last_lines
from tfnas.targets.tflite_micro import interpreter_process
from tfnas.tflite.artifact import Artifact, as_artifact
from tfnas.tflite.file_stream import is_stream, of_a_frame, stream_ends
from tfnas.tflite.flatbuffer import OperatorInfo, TensorInfo
from tfnas.tflite.operator_rules.tflite_micro import TAKES_INT4, check_micro, for_accelerator

if TYPE_CHECKING:
    from tfnas.data.data_types import InputData

_ALIGNMENT = 16  # of each buffer in the arena, in bytes
_NEVER = -1  # time of use of a tensor that no operator reads or writes
_SIZES = {"int4": 1, "bool": 1, "resource": 4, "variant": 4}
# Fields of operators' options that refer to a subgraph, in the order of TFLite Micro's plan.
_BODIES = (
    "thenSubgraphIndex",
    "elseSubgraphIndex",
    "initSubgraphIndex",
    "condSubgraphIndex",
    "bodySubgraphIndex",
)
_SUMMING = {"MEAN", "SUM"}
_REDUCING = {*_SUMMING, "REDUCE_MAX", "REDUCE_MIN"}
_TOTALS = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")


@dataclasses.dataclass(frozen=True)
class MicroMemory:
    """The memory of a file in TFLite Micro on this machine.

    Args:
        arena: Used part of the arena, in bytes.
        persistent: Bytes for the interpreter's lifetime: data structures of tensors, operators
            and kernels.
        non_persistent: Bytes that are shared over time: activations and scratch buffers.
    """

    arena: int
    persistent: int
    non_persistent: int

    def __str__(self) -> str:
        return (
            f"arena {self.arena:,} bytes: {self.persistent:,} persistent, "
            f"{self.non_persistent:,} shared over time"
        )


def run_micro(
    file: Artifact | str | os.PathLike[str], x: InputData, *, stateful: bool = False
) -> Any:
    """Runs a file in TFLite Micro on float inputs and returns float outputs.

    Its kernels are plain C++; with integers they compute the same on any processor. The operators
    of a MobileNetV2 (ADD, CONV_2D, DEPTHWISE_CONV_2D, MEAN, MUL, PAD, SOFTMAX) agree exactly with
    LiteRT's reference kernels, `file.predict(x, reference=True)`. An integer FULLY_CONNECTED may
    differ by one quantization step, also in later operators, because TFLite Micro rounds twice
    in 8 bits and uses 15-bit multipliers in 16 bits. Integer SUM is right in TFLite Micro and
    wrong in LiteRT's reference kernel (ai-edge-litert 2.3). The fast kernels of
    `file.predict(x)`, XNNPACK's among them, round in their own way, which may depend on the
    processor.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> tfnas.run_micro(tfnas.to_tflite(model), np.zeros((3, 4))).shape
        (3, 2)

    Args:
        file: An artifact or the path of a file.
        x: Inputs as for `Artifact.predict`: an array of shape (examples, ...), a data set, or,
            with several inputs, a dictionary by input name.
        stateful: Whether `x` is a stream: a state of the file is left from one example to the
            next. Otherwise it is reset before each. A file of `to_tflite(model, streaming=True)`
            takes frames then, (frames, ...), as :class:`tfnas.FileStream` does: each state that
            it gives is an input of the next frame.

    Returns:
        An array of shape (examples, ...), or a list of them with several outputs.

    Raises:
        ImportError: The package tflite-micro is not installed.
        ValueError: The inputs do not fit, TFLite Micro has no kernel for an operator, or the file
            is compiled for an accelerator.
        RuntimeError: TFLite Micro refuses the file or aborts; the message has its output.

    References:
        TFLite Micro, `python/tflite_micro/runtime.py`.
    """
    _check_package()
    file = as_artifact(file)
    check_micro(file)
    _check_alone(file)
    if stateful and is_stream(file):
        return _streamed(file, x)
    if is_stream(file) and not isinstance(x, dict):
        raise ValueError(
            "stateful must be True for a file that takes one frame and the state after the frames "
            "before, got False: x then holds frames, one after the other"
        )
    columns = file._columns(arrays(x, what="x")[0])
    inputs = {t.index: t.quantize(c) for t, c in zip(file.inputs, columns, strict=True)}
    outputs = _run(file, inputs, reset=not stateful and file.state != "none")
    values = [t.dequantize(o) for t, o in zip(file.outputs, outputs, strict=True)]
    return values[0] if len(values) == 1 else values


def micro_memory(file: Artifact | str | os.PathLike[str]) -> MicroMemory:
    """Measures the arena that a file needs in TFLite Micro on this machine.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> memory = tfnas.micro_memory(tfnas.to_tflite(model))
        >>> memory.arena == memory.persistent + memory.non_persistent
        True

    Args:
        file: An artifact or the path of a file.

    Returns:
        The memory in bytes, with the pointer width of this machine and including what the
        package itself needs to count allocations.

    Raises:
        ImportError: The package tflite-micro is not installed.
        ValueError: TFLite Micro has no kernel for an operator, or the file is compiled for an
            accelerator.
        RuntimeError: TFLite Micro refuses the file or aborts; the message has its output.

    References:
        TFLite Micro, `tensorflow/lite/micro/docs/memory_management.md`.
    """
    _check_package()
    file = as_artifact(file)
    check_micro(file)
    _check_alone(file)
    with tempfile.TemporaryDirectory() as folder:
        text = _call(file, pathlib.Path(folder))
    found = {name: int(count) for name, count in _TOTALS.findall(text)}
    if set(found) != {"total", "head", "tail"}:
        raise RuntimeError(
            f"TFLite Micro must report the arena's total, head and tail, got {text!r}"
        )
    return MicroMemory(found["total"], found["tail"], found["head"])


def planned_arena(file: Artifact | str | os.PathLike[str]) -> int:
    """Plans the memory of a file's activations as TFLite Micro does, and returns its size.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(20)])
        >>> tfnas.planned_arena(tfnas.to_tflite(model))  # 4 and 20 floats, in steps of 16 bytes
        96

    Args:
        file: An artifact or the path of a file; its batch size is the one stored in it.

    Returns:
        Bytes for inputs, outputs and activations, each from its first use to its last, and for
        the scratch buffers of sums, transposed convolutions and 4-bit kernels, placed by TFLite
        Micro's greedy planner or where a compiler has placed them. Not included: scratch buffers
        of other kernels (above all recurrent ones) and persistent memory.

    Raises:
        ValueError: A tensor has an open shape or an element type of unknown size.

    References:
        TFLite Micro, `micro_allocation_info.cc` and `memory_planner/greedy_memory_planner.cc`.
    """
    return _greedy(_Lifetimes(as_artifact(file)).buffers())


# --- the plan


@dataclasses.dataclass(frozen=True)
class _Buffer:
    """A buffer that is used from the operator `first` to the operator `last`, inclusive."""

    size: int
    first: int
    last: int
    offset: int = _NEVER  # set by a compiler

    def overlaps(self, other: _Buffer) -> bool:
        return self.first <= other.last and other.first <= self.last


class _Lifetimes:
    """First and last use of each tensor of a file, counted in operators.

    The body of a loop or branch is planned at its operator, as if it ran once.
    """

    def __init__(self, file: Artifact) -> None:
        self._graphs = file.graphs
        self._offsets = _offline(schema.Model.GetRootAs(file.content, 0))
        self._spans: dict[tuple[int, int], tuple[int, int]] = {}
        self._scratch: list[_Buffer] = []
        self._clock = 0
        self._mark(0)

    def buffers(self) -> list[_Buffer]:
        """Returns the buffers to place: tensors by index, then scratch buffers."""
        found = []
        for i, graph in enumerate(self._graphs):
            for tensor in graph.tensors:
                stored = tensor.variable or tensor.constant is not None
                size = 0 if stored else _aligned(_bytes(tensor))
                if size:
                    span = self._spans.get((i, tensor.index), (_NEVER, _NEVER))
                    found.append(_Buffer(size, *span, self._offsets.get((i, tensor.index), _NEVER)))
        return found + self._scratch

    def _mark(self, index: int) -> None:
        graph = self._graphs[index]
        for tensor in (*graph.inputs, *graph.outputs):
            self._make(index, tensor)
        for op in graph.operators:
            self._clock += 1
            for tensor in op.outputs:
                self._make(index, tensor)
            for body in _bodies(op):
                self._clock += 1
                self._mark(body)
            for tensor in (*op.inputs, *op.outputs):
                self._use(index, tensor)
            sizes = (_aligned(size) for size in _scratch_sizes(op) if size)
            self._scratch += [_Buffer(size, self._clock, self._clock) for size in sizes]
        for tensor in graph.outputs:
            self._use(index, tensor)

    def _make(self, graph: int, tensor: TensorInfo) -> None:
        self._spans[graph, tensor.index] = self._clock, self._clock

    def _use(self, graph: int, tensor: TensorInfo) -> None:
        first, _ = self._spans.get((graph, tensor.index), (_NEVER, _NEVER))
        self._spans[graph, tensor.index] = first, self._clock


def _bodies(op: OperatorInfo) -> list[int]:
    found = (getattr(op.options, name, None) for name in _BODIES)
    return [index for index in found if index is not None]


def _scratch_sizes(op: OperatorInfo) -> list[int]:
    """Bytes of a kernel's scratch buffers, as `Prepare` of TFLite Micro's kernels requests them."""
    integers = bool(op.outputs) and op.outputs[0].dtype in ("int8", "int16")
    if op.name in TAKES_INT4:  # they are unpacked
        return [_elements(tensor) for tensor in op.inputs if tensor.dtype == "int4"]
    if op.name == "TRANSPOSE_CONV" and integers:  # sums of 32 or 64 bits
        return [_elements(op.outputs[0]) * (4 if op.outputs[0].dtype == "int8" else 8)]
    if op.name == "UNIDIRECTIONAL_SEQUENCE_LSTM":  # a buffer for each gate, of the cell's type
        states = [tensor for tensor in op.inputs if tensor.variable]
        if not states:
            raise ValueError("file must have states in UNIDIRECTIONAL_SEQUENCE_LSTM, got none")
        return [_bytes(states[-1])] * 4
    if op.name == "SVDF":  # products with each filter, and with integers sums of each unit
        if len(op.inputs) < 2 or not (op.inputs[0].shape and op.inputs[1].shape and op.outputs):
            raise ValueError("file must have inputs and filters in SVDF, got a damaged one")
        filters, batch = op.inputs[1].shape[0], op.inputs[0].shape[0]
        of_units = [4 * _elements(op.outputs[0])] if integers else []
        return [4 * batch * filters, *of_units]
    if op.name in _REDUCING and len(op.inputs) > 1 and op.outputs:
        dimensions, axes = len(op.inputs[0].shape), _elements(op.inputs[1])
        sums = _elements(op.outputs[0]) if integers and op.name in _SUMMING else 0
        return [4 * dimensions, 4 * axes, 4 * sums]
    return []


def _offline(model: Any) -> dict[tuple[int, int], int]:
    """Offset in the arena by (subgraph, tensor), if a compiler has planned it."""
    for i in range(model.MetadataLength()):
        entry = model.Metadata(i)
        if entry.Name() == b"OfflineMemoryAllocation":
            buffer = model.Buffers(entry.Buffer()).DataAsNumpy()
            # Version, subgraph (TFLite Micro always takes the first), number of offsets, offsets.
            _, _, count, *offsets = np.frombuffer(bytes(buffer), "<i4").tolist()
            return {(0, n): offset for n, offset in enumerate(offsets[:count]) if offset >= 0}
    return {}


def _elements(tensor: TensorInfo) -> int:
    return int(np.prod(tensor.shape, dtype=np.int64))


def _bytes(tensor: TensorInfo) -> int:
    if any(size < 0 for size in tensor.shape):
        raise ValueError(f"tensor {tensor.name!r} must have a fixed shape, got {tensor.shape}")
    return _elements(tensor) * _item_size(tensor)


def _item_size(tensor: TensorInfo) -> int:
    if tensor.dtype in _SIZES:
        return _SIZES[tensor.dtype]
    try:
        return np.dtype(tensor.dtype).itemsize or 1
    except TypeError as error:
        raise ValueError(
            f"tensor {tensor.name!r} must have an element type of known size, got {tensor.dtype}"
        ) from error


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _greedy(buffers: list[_Buffer]) -> int:
    """Size of the arena: the largest buffer first, each in the first gap that it fits in."""
    fixed = [(buffer.offset, buffer) for buffer in buffers if buffer.offset != _NEVER]
    placed = sorted(fixed, key=lambda item: item[0])
    free = [buffer for buffer in buffers if buffer.offset == _NEVER]
    last_first = free[::-1]  # as TFLite Micro places buffers of equal size
    for buffer in sorted(last_first, key=lambda buffer: -buffer.size):
        offset = 0
        for start, other in placed:
            if not other.overlaps(buffer):
                continue
            if start - offset >= buffer.size:
                break
            offset = max(offset, start + other.size)
        bisect.insort(placed, (offset, buffer), key=lambda item: item[0])
    return max((start + buffer.size for start, buffer in placed), default=0)


# --- the interpreter


def _check_package() -> None:
    require("tflite_micro", "TFLite Micro")


def _check_alone(file: Artifact) -> None:
    if for_accelerator(file):
        raise ValueError(
            "file must run without an accelerator here, got one compiled for an Ethos-U: "
            "measure the file that it was compiled from"
        )


def _call(file: Artifact, folder: pathlib.Path, **options: Any) -> str:
    """Runs the interpreter's process on a folder of inputs and returns TFLite Micro's output."""
    file.save(folder / "model.tflite")
    # More than any known kernel requests: unused pages cost nothing here.
    arena = 8 * planned_arena(file) + 4 * file.size + 2**20
    (folder / "call.json").write_text(json.dumps({"arena": arena, **options}))
    done = subprocess.run(
        [sys.executable, interpreter_process.__file__, os.fspath(folder)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode > 0:
        raise RuntimeError(f"TFLite Micro refuses the file: {' '.join(done.stderr.split())}")
    if done.returncode < 0:
        raise RuntimeError(
            f"TFLite Micro aborts on the file with signal {-done.returncode}: "
            f"{last_lines(done.stderr)}"
        )
    return done.stderr


def _streamed(file: Artifact, frames: Any) -> Any:
    """The outputs of a file of one frame for frames one after the other."""
    ends = stream_ends(file)
    columns = ends.frames_of(frames, "x")
    first = ends.first_states()
    inputs = {t.index: t.quantize(c)[:, None] for t, c in zip(ends.inputs, columns, strict=True)}
    inputs |= {tensor.index: first[name] for name, tensor in ends.before.items()}
    states = {tensor.index: ends.after[name].index for name, tensor in ends.before.items()}
    places = {tensor.index: place for place, tensor in enumerate(file.outputs)}
    outputs = _run(file, inputs, states)
    values = [
        np.stack(
            [
                of_a_frame(one[None], has_steps)
                for one in tensor.dequantize(outputs[places[tensor.index]])
            ]
        )
        for tensor, has_steps in zip(ends.outputs, ends.steps, strict=True)
    ]
    return values[0] if len(values) == 1 else values


def _run(
    file: Artifact,
    inputs: dict[int, np.ndarray],
    states: dict[int, int] | None = None,
    reset: bool = False,
) -> list[np.ndarray]:
    """The file's outputs, still quantized, perhaps with a reset before each example.

    Args:
        file: The file.
        inputs: The numbers of its inputs, by the tensor's index.
        states: The outputs that are inputs of the next invocation, by index of the input.
        reset: Whether there is a reset.
    """
    batch = _batch(file)
    entries = [tensor.index for tensor in file.graph.inputs]
    order = [tensor.index for tensor in file.graph.outputs]
    columns: dict[str, Any] = {str(entries.index(index)): each for index, each in inputs.items()}
    handed_on = {entries.index(old): order.index(new) for old, new in (states or {}).items()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        np.savez(folder / "inputs.npz", **columns)
        _call(file, folder, batch=batch, outputs=len(order), reset=reset, states=handed_on)
        with np.load(folder / "outputs.npz") as found:
            return [found[str(order.index(tensor.index))] for tensor in file.outputs]


def _batch(file: Artifact) -> int:
    """Examples per invocation: TFLite Micro can't change the shapes in the file."""
    sizes = {tensor.shape[:1] for tensor in (*file.graph.inputs, *file.graph.outputs)}
    if len(sizes) != 1 or () in sizes:
        raise ValueError(
            "file must have the same batch size in the first dimension of all inputs and outputs, "
            f"got shapes that begin with {sorted(sizes)}"
        )
    [[batch]] = sizes
    return batch
