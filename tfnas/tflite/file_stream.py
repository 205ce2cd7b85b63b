"""Runs a file that takes one frame of a sequence at a time, and keeps its state."""

from __future__ import annotations

import os

import numpy as np

from tfnas.tflite.artifact import Artifact, as_artifact

STATE = "state_"  # start of the names of states


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

    Raises:
        ValueError: The file has no states.
    """

    def __init__(self, file: Artifact | str | os.PathLike[str], *, reference: bool = False) -> None:
        file = as_artifact(file)
        after = {tensor.name: tensor for tensor in file.outputs if tensor.name.startswith(STATE)}
        before = {tensor.name: tensor for tensor in file.inputs if tensor.name in after}
        if not before or set(before) != set(after):
            raise ValueError(
                "file must have states as inputs and outputs of the same names, got "
                f"{[tensor.name for tensor in file.inputs]} and "
                f"{[tensor.name for tensor in file.outputs]}: "
                "tfnas.to_tflite(model, streaming=True) writes them"
            )
        self._before, self._after = before, after
        self._inputs = [tensor for tensor in file.inputs if tensor.name not in before]
        self._outputs = [tensor for tensor in file.outputs if tensor.name not in after]
        self._interpreter = file.interpreter(xnnpack=not reference, reference=reference)
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
        self._state = {
            name: tensor.quantize(np.zeros(tensor.shape, np.float32))
            for name, tensor in self._before.items()
        }

    def __call__(self, frames: np.ndarray | dict[str, np.ndarray]) -> np.ndarray | list[np.ndarray]:
        """Runs frames through the file, which goes on from the state after those before.

        Args:
            frames: Real numbers of shape (frames, ...): one frame or many. With several inputs a
                dictionary by input name.

        Returns:
            For each frame the output, (frames, ...), or a list of them with several outputs.

        Raises:
            ValueError: A frame has the wrong shape.
        """
        columns = frames if isinstance(frames, dict) else {self._inputs[0].name: frames}
        names = [tensor.name for tensor in self._inputs]
        if set(columns) != set(names):
            raise ValueError(f"frames must hold the inputs {names}, got {sorted(columns)}")
        arrays = [np.asarray(columns[tensor.name]) for tensor in self._inputs]
        for tensor, array in zip(self._inputs, arrays, strict=True):
            if array.shape[1:] != tuple(tensor.shape[2:]):
                raise ValueError(
                    f"frames of input {tensor.name!r} must have the shape "
                    f"(frames, {', '.join(map(str, tensor.shape[2:]))}), got {array.shape}"
                )
        found = [self._step([array[i] for array in arrays]) for i in range(len(arrays[0]))]
        outputs = [np.stack(column) for column in zip(*found, strict=True)]
        return outputs[0] if len(outputs) == 1 else outputs

    def _step(self, frame: list[np.ndarray]) -> list[np.ndarray]:
        """The outputs for one frame."""
        interpreter = self._interpreter
        for tensor, values in zip(self._inputs, frame, strict=True):
            interpreter.set_tensor(tensor.index, tensor.quantize(values[None, None]))
        for name, tensor in self._before.items():
            interpreter.set_tensor(tensor.index, self._state[name])
        interpreter.invoke()
        self._state = {n: interpreter.get_tensor(t.index) for n, t in self._after.items()}
        outputs = [t.dequantize(interpreter.get_tensor(t.index))[0] for t in self._outputs]
        # A sequence has one frame, which is not told apart from the output of a last step.
        return [one[0] if one.ndim > 1 and len(one) == 1 else one for one in outputs]
