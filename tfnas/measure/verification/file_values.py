"""What the tensors of a file hold while it runs, found by their numbers."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence

import keras
import numpy as np

from tfnas.tflite.artifact import Artifact

_MOST_AXES = 4  # of tensors that are compared in every order of their axes


class FileTensors:
    """The values of all float tensors of a file for a few examples.

    Args:
        artifact: The file.
        model: Its model, which names the inputs.
        columns: One array per input of the model.
        examples: How many of them are run.
    """

    def __init__(
        self,
        artifact: Artifact,
        model: keras.Model,
        columns: Sequence[np.ndarray],
        examples: int,
    ) -> None:
        self._artifact = artifact
        self.has_float16 = any(tensor.dtype == "float16" for tensor in artifact.graph.tensors)
        named = dict(zip((tensor.name for tensor in model.inputs), columns, strict=True))
        single = len(named) == 1
        self._inputs = [columns[0] if single else named[tensor.name] for tensor in artifact.inputs]
        self.by_size: dict[int, list[tuple[int, np.ndarray]]] = defaultdict(list)
        fixed = {tensor.shape[0] for tensor in artifact.inputs} - {-1}
        size = max(fixed, default=examples)
        runs = [self._run(range(start, start + size)) for start in range(0, examples, size)]
        for index in runs[0]:
            parts = [run[index] for run in runs if index in run]
            value = parts[0] if len(parts) == 1 else np.concatenate(parts)
            value = value[:examples] if fixed and value.ndim else value
            self.by_size[value.size].append((index, value))

    def _run(self, rows: range) -> dict[int, np.ndarray]:
        """The tensors of one run; rows beyond the last example repeat the examples."""
        blocks = [column[np.array(rows) % len(column)] for column in self._inputs]
        interpreter = self._artifact.interpreter(
            xnnpack=False, shapes=[block.shape for block in blocks], keep_all=True
        )
        for tensor, block in zip(self._artifact.inputs, blocks, strict=True):
            interpreter.set_tensor(tensor.index, tensor.quantize(block))
        interpreter.invoke()
        found = {}
        for each in self._artifact.graph.tensors:
            if each.constant is not None or not each.dtype.startswith("float"):
                continue
            try:
                found[each.index] = interpreter.get_tensor(each.index)
            except ValueError:  # a tensor that no run fills, as one inside of a delegate
                continue
        return found

    def error_of(self, expected: np.ndarray) -> float:
        """Returns how far the nearest tensor of the file is from numbers of Keras.

        Args:
            expected: A layer's output.

        Returns:
            The largest difference as a fraction of the largest number; infinity where the file
            has no tensor of this size.
        """
        return min((error for error, _ in self._errors(expected)), default=np.inf)

    def nearest(self, expected: np.ndarray) -> int:
        """Returns the index of the nearest tensor; -1 where there is none of this size.

        Args:
            expected: A layer's output.
        """
        return min(self._errors(expected), default=(np.inf, -1))[1]

    def nearest_form(self, expected: np.ndarray) -> np.ndarray:
        """Returns the nearest tensor in the shape of numbers of Keras; these where there is none.

        Args:
            expected: A layer's output.
        """
        index, numbers = self.nearest(expected), expected.astype(np.float64)
        for place, value in self.by_size[expected.size]:
            if place == index:
                forms = _forms(value, expected.shape)
                return min(forms, key=lambda form: _distance(numbers, form))
        return expected

    def _errors(self, expected: np.ndarray) -> list[tuple[float, int]]:
        if not expected.size or expected.dtype.kind not in "fiub":
            return [(0.0, -1)]
        numbers = expected.astype(np.float64)
        scale = float(np.abs(numbers).max()) or 1.0
        return [
            (min(_distance(numbers, form) for form in _forms(value, numbers.shape)) / scale, index)
            for index, value in self.by_size[expected.size]
        ]


def _forms(value: np.ndarray, shape: tuple[int, ...]) -> list[np.ndarray]:
    """A tensor as one of another shape; its axes in any order where the sizes allow it."""
    found = [value.reshape(shape)]
    squeezed = value.reshape([size for size in value.shape if size > 1] or [1])
    sizes = [size for size in shape if size > 1] or [1]
    if 1 < squeezed.ndim <= _MOST_AXES and sorted(squeezed.shape) == sorted(sizes):
        for order in itertools.permutations(range(squeezed.ndim)):
            turned = squeezed.transpose(order)
            if turned.shape == tuple(sizes) and order != tuple(range(squeezed.ndim)):
                found.append(turned.reshape(shape))
    return found


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    difference = np.abs(one - other.astype(np.float64))
    return float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0))
