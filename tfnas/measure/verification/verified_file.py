"""How the file of a verification is run on the inputs of its model.

A file of whole examples takes them as its model does. A file of one frame
(`to_tflite(model, streaming=True)`) gets each sequence frame by frame, from the state before the
first one on; what its model returns for a last step is then the output of the last frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from tfnas.measure.model_and_file import check_same_ends, check_same_tensors, names_of_outputs
from tfnas.measure.verification.cases import Case, cases, cases_of_numbers
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.file_stream import (
    FileStream,
    check_sequences,
    ends_without_states,
    is_stream,
    sequence_outputs,
    stream_ends,
)

MOST_FRAMES = 20_000  # of all sequences: a stream takes one after the other


class VerifiedFile(Protocol):
    """A file beside its model.

    Args:
        names: The model's names of the outputs, in the file's order.
        own_names: The file's names of them.
        streaming: Whether the file takes one frame.
    """

    names: list[str]
    own_names: list[str]
    streaming: bool

    def used(self, columns: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The examples that the file is run on."""

    def cases(self, columns: Sequence[np.ndarray], seed: int) -> Iterator[Case]:
        """The inputs of a verification."""

    def outputs(self, case: Case) -> list[np.ndarray]:
        """The file's outputs, as the model has them, (examples, ...)."""


class WholeExamples:
    """A file of whole examples.

    Args:
        model: The model, without preprocessing in front.
        artifact: The file.

    Raises:
        ValueError: The file has other inputs or outputs.
    """

    streaming = False

    def __init__(self, model: keras.Model, artifact: Artifact) -> None:
        check_same_ends(model, artifact)
        self._model, self._artifact = model, artifact
        self.own_names = [tensor.name for tensor in artifact.outputs]
        self.names = names_of_outputs(model, self.own_names)

    def used(self, columns: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns all examples."""
        return list(columns)

    def cases(self, columns: Sequence[np.ndarray], seed: int) -> Iterator[Case]:
        """Yields real inputs, ends of ranges, other batches and other sizes."""
        yield from cases(self._model, self._artifact, columns, seed)

    def outputs(self, case: Case) -> list[np.ndarray]:
        """Returns the outputs of a run in batches."""
        names = [tensor.name for tensor in self._model.inputs]
        named = dict(zip(names, case.columns, strict=True))
        x: Any = case.columns[0] if len(names) == 1 else named
        found = self._artifact.predict(x, batch_size=case.batch_size)
        return found if isinstance(found, list) else [found]


class FrameByFrame:
    """A file of one frame.

    Args:
        model: The model of whole sequences.
        artifact: The file.

    Raises:
        ValueError: The file has other inputs or outputs.
    """

    streaming = True

    def __init__(self, model: keras.Model, artifact: Artifact) -> None:
        inputs, outputs = ends_without_states(artifact)
        check_same_tensors(model, {each.name: each.shape for each in inputs}, len(outputs))
        self._stream, self._steps = FileStream(artifact), stream_ends(artifact).steps
        self.own_names = [tensor.name for tensor in outputs]
        self.names = names_of_outputs(model, self.own_names)
        for name, tensor, output, has_steps in zip(
            self.names, model.outputs, outputs, self._steps, strict=True
        ):
            _check_output(name, tuple(tensor.shape), tuple(output.shape), has_steps)
        # A file of one input may call it otherwise.
        own = [tensor.name for tensor in inputs]
        self._inputs = own if len(own) == 1 else [tensor.name for tensor in model.inputs]

    def used(self, columns: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns as many sequences as have 20,000 frames together, one at least."""
        check_sequences(columns, "data")
        most = max(1, MOST_FRAMES // max(1, columns[0].shape[1]))
        return [column[:most] for column in columns]

    def cases(self, columns: Sequence[np.ndarray], seed: int) -> Iterator[Case]:
        """Yields real sequences, and ends of ranges."""
        yield from cases_of_numbers(columns, seed)

    def outputs(self, case: Case) -> list[np.ndarray]:
        """Returns the outputs of all frames, or of the last one where the model has no steps."""
        named = dict(zip(self._inputs, case.columns, strict=True))
        joined = sequence_outputs(self._stream, named)
        return [
            output if has_steps else output[:, -1]
            for output, has_steps in zip(joined, self._steps, strict=True)
        ]


def _check_output(
    name: str, model: tuple[int | None, ...], file: tuple[int, ...], has_steps: bool
) -> None:
    """Raises ValueError where an output of a model is not what a stream returns for its frames."""
    first = 2 if has_steps else 1
    expected, found = model[first:], file[first:]
    if len(model) != len(file) or any(
        size not in (None, got) for size, got in zip(expected, found, strict=True)
    ):
        kind = "of each frame" if has_steps else "after the last frame"
        raise ValueError(
            f"file must be a stream of the model, whose output {name!r} has the shape {model}, "
            f"got {found} {kind}: tfnas.to_tflite(model, streaming=True), or `tfnas export "
            "--streaming`, writes the model's own"
        )


def verified_file(model: keras.Model, artifact: Artifact) -> VerifiedFile:
    """Returns how a file is run beside its model.

    Args:
        model: The model, without preprocessing in front.
        artifact: The file.

    Raises:
        ValueError: The file has other inputs or outputs.
    """
    return (FrameByFrame if is_stream(artifact) else WholeExamples)(model, artifact)
