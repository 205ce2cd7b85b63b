"""Runs a file that takes one frame of a sequence at a time, and keeps its state."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.data.reading import arrays
from tfnas.tflite.artifact import Artifact, as_artifact
from tfnas.tflite.file_interpreter import STATE, input_columns
from tfnas.tflite.metadata import read_entry
from tfnas.tflite.tensor_details import TensorDetails

if TYPE_CHECKING:
    from tfnas.data.data_types import InputData

STEPS = b"TFNAS_STEPS"  # an entry of the file's metadata, see `_steps`


@dataclasses.dataclass(frozen=True)
class StreamEnds:
    """Inputs and outputs of a file of one frame, without states, and the states.

    Args:
        inputs: What a frame consists of.
        outputs: What is computed of it.
        before: States before the frame, by name.
        after: The same states after it.
        steps: Whether each output is that of a frame, (1, 1, ...), not of a last step, (1, ...).
    """

    inputs: tuple[TensorDetails, ...]
    outputs: tuple[TensorDetails, ...]
    before: dict[str, TensorDetails]
    after: dict[str, TensorDetails]
    steps: tuple[bool, ...]

    def first_states(self) -> dict[str, np.ndarray]:
        """Returns the states before the first frame, in the numbers of the file: zeros."""
        return {
            name: tensor.quantize(np.zeros(tensor.shape, np.float32))
            for name, tensor in self.before.items()
        }

    def frames_of(
        self, frames: np.ndarray | dict[str, np.ndarray], what: str = "frames"
    ) -> list[np.ndarray]:
        """Returns frames as one array an input, (frames, ...).

        Args:
            frames: One array, or a dictionary by input name.
            what: Name of the argument, for messages.

        Raises:
            ValueError: An input is missing, or a frame has the wrong shape.
        """
        columns = frames if isinstance(frames, dict) else {self.inputs[0].name: frames}
        names = [tensor.name for tensor in self.inputs]
        if set(columns) != set(names):
            raise ValueError(f"{what} must hold the inputs {names}, got {sorted(columns)}")
        arrays = [np.asarray(columns[tensor.name]) for tensor in self.inputs]
        for tensor, array in zip(self.inputs, arrays, strict=True):
            if array.shape[1:] != tuple(tensor.shape[2:]):
                raise ValueError(
                    f"{what} of input {tensor.name!r} must have the shape "
                    f"(frames, {', '.join(map(str, tensor.shape[2:]))}), got {array.shape}"
                )
        counts = [len(array) for array in arrays]
        if len(set(counts)) > 1 or not counts[0]:
            raise ValueError(
                f"{what} must hold at least one frame, as many for each input, got {counts}"
            )
        return arrays


def stream_ends(file: Artifact) -> StreamEnds:
    """Returns the inputs, outputs and states of a file of one frame.

    Args:
        file: A file of `to_tflite(model, streaming=True)`.

    Raises:
        ValueError: The file has no states.
    """
    after = {tensor.name: tensor for tensor in file.outputs if tensor.name.startswith(STATE)}
    before = {tensor.name: tensor for tensor in file.inputs if tensor.name in after}
    if not before or set(before) != set(after):
        raise ValueError(
            "file must have states as inputs and outputs of the same names, got "
            f"{[tensor.name for tensor in file.inputs]} and "
            f"{[tensor.name for tensor in file.outputs]}: "
            "tfnas.to_tflite(model, streaming=True) writes them"
        )
    inputs = tuple(tensor for tensor in file.inputs if tensor.name not in before)
    outputs = tuple(tensor for tensor in file.outputs if tensor.name not in after)
    return StreamEnds(inputs, outputs, before, after, _steps(file, outputs))


def _steps(file: Artifact, outputs: tuple[TensorDetails, ...]) -> tuple[bool, ...]:
    """Whether each output is that of a frame, as the file says: a JSON list, in Keras' order.

    Files of earlier releases do not say it. Their shapes do, unless a last step has one row.
    """
    record = read_entry(file.content, STEPS)
    if record is None:
        return tuple(len(each.shape) > 2 and each.shape[1] == 1 for each in outputs)
    try:
        found = json.loads(record)
    except ValueError:
        found = None
    known = isinstance(found, list) and all(isinstance(each, bool) for each in found)
    if not known or len(found) != len(outputs):
        raise ValueError(
            f"{STEPS.decode()} in the file's metadata must say of each of its {len(outputs)} "
            f"outputs whether it has steps, got {record[:80]!r}"
        )
    return tuple(found)


def is_stream(file: Artifact) -> bool:
    """Whether a file takes one frame, and its states as inputs."""
    return any(tensor.name.startswith(STATE) for tensor in file.inputs)


def ends_without_states(
    file: Artifact,
) -> tuple[tuple[TensorDetails, ...], tuple[TensorDetails, ...]]:
    """Returns the inputs and the outputs of a file as its model has them.

    Those of a file of one frame have open sizes of the batch and of the steps.

    Args:
        file: Any file.
    """
    if not is_stream(file):
        return file.inputs, file.outputs
    ends = stream_ends(file)
    opened = (
        dataclasses.replace(tensor, shape=(-1, -1, *tensor.shape[2:])) for tensor in ends.inputs
    )
    return tuple(opened), ends.outputs


def sequence_outputs(
    stream: FileStream, columns: Mapping[str, np.ndarray], *, keep_state: bool = False
) -> list[np.ndarray]:
    """Runs sequences through a stream, one after the other.

    Args:
        stream: The stream.
        columns: Sequences by the names of the inputs, (examples, frames, ...).
        keep_state: Whether a sequence goes on from the one before; else each begins anew.

    Returns:
        Each output of each frame, (examples, frames, ...).
    """
    found: list[list[np.ndarray]] = []
    for place in range(len(next(iter(columns.values())))):
        if not keep_state:
            stream.reset()
        outputs = stream({name: column[place] for name, column in columns.items()})
        found.append(outputs if isinstance(outputs, list) else [outputs])
    return [np.stack(parts) for parts in zip(*found, strict=True)]


def check_sequences(columns: Sequence[np.ndarray], what: str) -> None:
    """Raises ValueError unless there are sequences with frames, as many for each input.

    Args:
        columns: For each input an array (examples, frames, ...).
        what: Name of the argument that holds them.
    """
    shapes = [column.shape for column in columns]
    if len({shape[:2] for shape in shapes}) > 1 or not all(shapes[0][:2]):
        raise ValueError(
            f"{what} must hold at least one sequence (examples, frames, ...) of at least one "
            f"frame, as many for each input, got the shape {', '.join(map(str, shapes))}"
        )


def sequence_predictor(
    file: Artifact, *, threads: int = 1, stateful: bool = False
) -> Callable[[InputData], Any]:
    """Returns a function that runs whole sequences through a file of one frame.

    It returns what the file of whole sequences does: of an output of all steps those of each frame,
    of another one that of the last frame.

    Args:
        file: A file of `to_tflite(model, streaming=True)`.
        threads: Threads of the interpreter.
        stateful: Whether a sequence goes on from the one before.
    """
    stream, steps = FileStream(file, threads=threads), stream_ends(file).steps
    tensors, _ = ends_without_states(file)

    def predict(x: InputData) -> Any:
        columns = input_columns(arrays(x, what="x")[0], tensors, file.origin.get("inputs", ()))
        check_sequences(columns, "x")
        named = dict(zip((tensor.name for tensor in tensors), columns, strict=True))
        outputs = sequence_outputs(stream, named, keep_state=stateful)
        outputs = [
            found if has_steps else found[:, -1]
            for has_steps, found in zip(steps, outputs, strict=True)
        ]
        return outputs[0] if len(outputs) == 1 else outputs

    return predict


def of_a_frame(output: np.ndarray, has_steps: bool) -> np.ndarray:
    """Returns an output of one example without the axes of the batch and of the one frame.

    Args:
        output: (1, 1, ...), or (1, ...) of what comes after a last step.
        has_steps: Whether it is the first.
    """
    one: np.ndarray = output[0]
    return one[0] if has_steps else one


class FileStream:
    """A stream through a file of `to_tflite(model, streaming=True)`.

    The file gets its state as inputs and gives it as outputs of the same names, which start with
    `state_`. This class hands them on from frame to frame, as an application does on a device.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((6, 3)), keras.layers.LSTM(4)])
        >>> stream = tfnas.FileStream(tfnas.to_tflite(model, streaming=True))
        >>> frames = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
        >>> outputs = stream(frames)
        >>> outputs.shape, np.allclose(outputs[-1], model(frames[None])[0], atol=1e-5)
        ((6, 4), True)

    Args:
        file: The artifact, or the path of a file.
        reference: Whether LiteRT's reference kernels compute, as in
            :meth:`tfnas.Artifact.interpreter`.
        threads: Threads of the interpreter.

    Raises:
        ValueError: The file has no states.
    """

    def __init__(
        self,
        file: Artifact | str | os.PathLike[str],
        *,
        reference: bool = False,
        threads: int = 1,
    ) -> None:
        file = as_artifact(file)
        self._ends = stream_ends(file)
        self._interpreter = file.interpreter(
            xnnpack=not reference, reference=reference, threads=threads
        )
        self._state: dict[str, np.ndarray] = {}
        self.reset()

    def reset(self) -> None:
        """Sets the state to that before the first frame: zeros.

        Example:
            >>> import keras, numpy as np, tfnas
            >>> model = keras.Sequential([keras.Input((6, 3)), keras.layers.GRU(4)])
            >>> stream = tfnas.FileStream(tfnas.to_tflite(model, streaming=True))
            >>> first = stream(np.ones((1, 3)))
            >>> stream.reset()
            >>> bool((stream(np.ones((1, 3))) == first).all())
            True
        """
        self._state = self._ends.first_states()

    def __call__(self, frames: np.ndarray | dict[str, np.ndarray]) -> np.ndarray | list[np.ndarray]:
        """Runs frames through the file, which goes on from the state after those before.

        Args:
            frames: Real numbers of shape (frames, ...): one frame or many. With several inputs a
                dictionary by input name.

        Returns:
            For each frame the output, (frames, ...), or a list of them with several outputs.

        Raises:
            ValueError: An input is missing, or a frame has the wrong shape.
        """
        arrays = self._ends.frames_of(frames)
        found = [self._step([array[i] for array in arrays]) for i in range(len(arrays[0]))]
        outputs = [np.stack(column) for column in zip(*found, strict=True)]
        return outputs[0] if len(outputs) == 1 else outputs

    def _step(self, frame: list[np.ndarray]) -> list[np.ndarray]:
        """The outputs for one frame."""
        interpreter, ends = self._interpreter, self._ends
        for tensor, values in zip(ends.inputs, frame, strict=True):
            interpreter.set_tensor(tensor.index, tensor.quantize(values[None, None]))
        for name, tensor in ends.before.items():
            interpreter.set_tensor(tensor.index, self._state[name])
        interpreter.invoke()
        self._state = {n: interpreter.get_tensor(t.index) for n, t in ends.after.items()}
        return [
            of_a_frame(tensor.dequantize(interpreter.get_tensor(tensor.index)), has_steps)
            for tensor, has_steps in zip(ends.outputs, ends.steps, strict=True)
        ]
