"""How far a quantization-aware model and its file are apart at each rounding by itself.

A model may multiply a difference: a softmax of scores that are nearly one step apart, a
normalization by a small deviation, a recurrent state. A step of one rounding is many steps at the
output then, and the output alone does not say whether the file rounds as the model does. So the
model computes each rounding from the numbers that the file has before it. Where all of these are
within a step, the file is the model with one step at most at each rounding.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

import tfnas
from tfnas.graph.functional import walk
from tfnas.quantization.fake_quant import FakeQuant
from tfnas.tflite.file_interpreter import input_columns
from tfnas.tflite.tensor_details import TensorDetails, tensor_details


def apart_at_each_rounding(
    trainable: keras.Model, file: tfnas.Artifact, x: Any
) -> dict[str, float | None]:
    """Compares each fake quantization with the file's tensor, both from the file's numbers.

    Args:
        trainable: A functional quantization-aware model.
        file: Its file, converted in this process.
        x: Inputs of the model.

    Returns:
        Name of the layer that rounds -> the largest difference in its steps; None where the file
        has no tensor of the size and the scale, because a later rounding alone is left.
    """
    flow, tensors = walk(trainable), _tensors(file, x)
    ends = {v: t.index for v, t in zip(flow.outputs, file.outputs, strict=True)}
    columns = x if isinstance(x, list) else [x]
    numbers = dict(zip(flow.inputs, map(ops.convert_to_tensor, columns), strict=True))
    apart: dict[str, float | None] = {}
    for call in flow.calls:
        args, kwargs = call.arguments([numbers[value] for value in call.inputs])
        results = keras.tree.flatten(call.operation(*args, **kwargs))
        if isinstance(call.operation, FakeQuant):
            expected = ops.convert_to_numpy(results[0])
            end = ends.get(call.outputs[0])
            others = [each for each in tensors if end in (None, each[0].index)]
            found = _nearest(others, expected, _step(call.operation))
            apart[call.name] = None
            if found is not None:
                results = [ops.convert_to_tensor(found)]
                apart[call.name] = float(np.abs(found - expected).max()) / _step(call.operation)
        numbers.update(zip(call.outputs, results, strict=True))
    return apart


def _step(rounding: FakeQuant) -> float:
    low, high = (float(end) for end in rounding.grid_range())
    return (high - low) / (2**rounding.bits - 1 - rounding.symmetric)


def _nearest(
    tensors: list[tuple[TensorDetails, np.ndarray]], expected: np.ndarray, step: float
) -> np.ndarray | None:
    found = [
        each.dequantize(values)
        for each, all_values in tensors
        if all_values.size == expected.size and abs(each.scale - step) <= 1e-3 * step
        for values in _orders(all_values.reshape(-1), expected.shape)
    ]
    return min(found, key=lambda each: np.abs(each - expected).mean(), default=None)


def _orders(values: np.ndarray, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """The numbers in a shape, in each order of its axes behind the batch.

    The converter may round before a transposition what the model rounds behind it.
    """
    for order in itertools.permutations(range(1, len(shape))):
        axes = (0, *order)[: len(shape)]
        stored = values.reshape([shape[axis] for axis in axes])
        yield stored.transpose(np.argsort(axes))


def _tensors(file: tfnas.Artifact, x: Any) -> list[tuple[TensorDetails, np.ndarray]]:
    """All integers of a run of the file with one scale."""
    columns = input_columns(x, file.inputs, file.origin.get("inputs", ()))
    shapes = [column.shape for column in columns]
    try:
        interpreter = file.interpreter(shapes=shapes, keep_all=True, reference=True)
    except ValueError as error:
        # The reference kernels lack ELU and the newest TILE.
        if "Didn't find op" not in str(error):
            raise
        interpreter = file.interpreter(xnnpack=False, shapes=shapes, keep_all=True)
    for tensor, column in zip(file.inputs, columns, strict=True):
        interpreter.set_tensor(tensor.index, tensor.quantize(column))
    interpreter.invoke()
    found = []
    for details in interpreter.get_tensor_details():
        tensor = tensor_details(details["name"], details)
        try:
            found.append((tensor, interpreter.get_tensor(tensor.index)))
        except ValueError:  # a tensor that no run fills
            continue
    return [(tensor, values) for tensor, values in found if tensor.scale]
