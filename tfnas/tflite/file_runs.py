"""Runs of a `.tflite` file on many examples, as the file's shapes and its state require.

A file that fixes the size of its batch is fed blocks of that size: the last one is filled up, and
its outputs are cut. Such a file is never resized: LiteRT would accept most sizes, and a RESHAPE to
a constant shape would then mix examples. A file whose batch is open gets batches of any size.

Some files have a state that one run leaves to the next: variable tensors (a fused LSTM, an SVDF)
or variables (ASSIGN_VARIABLE). It is reset before each batch, so that the outputs of an example do
not depend on the examples before, unless the examples are a stream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from tfnas.tflite.flatbuffer import FileGraph
from tfnas.tflite.tensor_details import TensorDetails

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

State = Literal["none", "tensors", "variables"]
_VARIABLES = {"VAR_HANDLE", "ASSIGN_VARIABLE"}


class BatchRefused(Exception):
    """The file does not return one output per example for this batch size."""


def state_of(graphs: Sequence[FileGraph]) -> State:
    """Returns what state a file leaves from one run to the next.

    Args:
        graphs: The graphs of the file.

    Returns:
        "tensors": `Interpreter.reset_all_variables` resets it. "variables": only a new
        interpreter does.
    """
    if any(op.name in _VARIABLES for graph in graphs for op in graph.operators):
        return "variables"
    tensors = any(tensor.variable for graph in graphs for tensor in graph.tensors)
    return "tensors" if tensors else "none"


def fixed_batch(tensors: Sequence[TensorDetails]) -> int | None:
    """Returns the batch size that a file fixes.

    Args:
        tensors: The file's inputs.

    Returns:
        The first size of each input; None where all of them are open.

    Raises:
        ValueError: The inputs fix different sizes, or one is a scalar.
    """
    scalars = [tensor.name for tensor in tensors if not tensor.shape]
    if scalars:
        raise ValueError(
            f"file must have inputs of shape (examples, ...), got the scalar {scalars[0]!r}"
        )
    sizes = {tensor.shape[0] for tensor in tensors} - {-1}
    if len(sizes) > 1:
        named = ", ".join(f"{tensor.name!r} {tensor.shape}" for tensor in tensors)
        raise ValueError(f"file must fix one batch size for all inputs, got {named}")
    return sizes.pop() if sizes else None


class FileRuns:
    """Runs one file on blocks of examples, with one interpreter as long as shapes stay.

    Args:
        new: Returns a new interpreter of the file, for the shapes of its inputs, or for those in
            the file (None).
        inputs: The file's inputs.
        outputs: The file's outputs.
        state: The file's state.
        batch_size: Examples per invocation, where the file does not fix it.
        keep_state: Whether the examples are a stream: the state is left from one to the next,
            also from one call to the next. An open batch is then 1.
    """

    def __init__(
        self,
        new: Callable[[list[tuple[int, ...]] | None], Interpreter],
        inputs: Sequence[TensorDetails],
        outputs: Sequence[TensorDetails],
        state: State,
        batch_size: int,
        keep_state: bool = False,
    ) -> None:
        self._new, self._inputs, self._outputs = new, inputs, outputs
        self._state, self._keep_state = state, keep_state
        self._fixed = fixed_batch(inputs)
        self._batch_size = 1 if keep_state and state != "none" else batch_size
        self._interpreter: Interpreter | None = None
        self._shapes: list[tuple[int, ...]] | None = None
        self._used = False
        self._filled_up = False

    def __call__(self, columns: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Runs the file on examples.

        Args:
            columns: For each input real numbers of shape (examples, ...).

        Returns:
            For each output an array of shape (examples, ...) in the element type of the file.

        Raises:
            ValueError: The file does not have one output per example, or a stream goes on after a
                block that was filled up, whose other rows have no state to go on from.
            RuntimeError: The interpreter refuses the file.
        """
        try:
            if self._fixed is not None:
                if self._filled_up:
                    raise ValueError(
                        f"x must hold a multiple of {self._fixed} examples, the batch that the "
                        "file fixes, in each call of a stream but the last one"
                    )
                keeps = self._keep_state and self._state != "none"
                self._filled_up = keeps and len(columns[0]) % self._fixed > 0
                return self._run(columns, self._fixed)
            batch = min(self._batch_size, len(columns[0]))
            try:
                return self._run(columns, batch)
            except (RuntimeError, BatchRefused):
                if batch == 1:
                    raise
                found = self._run(columns, 1)
                self._batch_size = 1  # an operator fixes the batch size: one example at a time
                return found
        except BatchRefused as error:
            raise ValueError(f"file must have an output per example, but {error}") from error

    def _run(self, columns: Sequence[np.ndarray], batch: int) -> list[np.ndarray]:
        examples = len(columns[0])
        shapes = [(batch, *column.shape[1:]) for column in columns]
        parts: list[list[np.ndarray]] = [[] for _ in self._outputs]
        for start in range(0, examples, batch):
            used = min(batch, examples - start)
            interpreter = self._ready(shapes)
            for tensor, column in zip(self._inputs, columns, strict=True):
                block = tensor.quantize(column[start : start + used])
                if used < batch:  # filled up; its outputs are cut below
                    block = np.concatenate([block, np.repeat(block[-1:], batch - used, 0)])
                interpreter.set_tensor(tensor.index, block)
            interpreter.invoke()
            self._used = True
            for tensor, part in zip(self._outputs, parts, strict=True):
                out = interpreter.get_tensor(tensor.index)
                if out.ndim == 0 or len(out) != batch:
                    raise BatchRefused(f"{tensor.name} is {out.shape} for a batch of {batch}")
                part.append(out[:used])
        return [np.concatenate(part) for part in parts]

    def _ready(self, shapes: list[tuple[int, ...]]) -> Interpreter:
        """An interpreter of these shapes, in its first state unless that is kept."""
        reset = self._used and not self._keep_state
        renew = reset and self._state == "variables"
        if self._interpreter is None or renew or shapes != self._shapes:
            stored = all(-1 not in tensor.shape for tensor in self._inputs)
            self._interpreter, self._shapes = self._new(None if stored else shapes), shapes
        elif reset and self._state == "tensors":
            self._interpreter.reset_all_variables()
        self._used = False
        return self._interpreter
