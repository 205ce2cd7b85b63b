"""What each layer of a Keras model computes, for a few examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfnas.graph.functional import Call, rebuild, walk

EXAMPLES = 4


@dataclasses.dataclass(frozen=True, eq=False)
class LayerValue:
    """A call of a layer with what it takes and gives.

    Args:
        name: Path of the layer.
        kind: Name of its class.
        call: The call.
        inputs: What it takes, one array per input.
        output: What it gives; its first output.
        before: Places of the calls that give its inputs.
    """

    name: str
    kind: str
    call: Call
    inputs: tuple[np.ndarray, ...]
    output: np.ndarray
    before: tuple[int, ...]

    @property
    def operation(self) -> Any:
        """The layer or operation."""
        return self.call.operation

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """Returns what the call of one input makes of other numbers.

        Args:
            numbers: The input, (examples, ...).
        """
        return np.asarray(_results(self.call, [keras.ops.convert_to_tensor(numbers)])[0])


def layer_values(model: keras.Model, columns: Sequence[np.ndarray]) -> list[LayerValue]:
    """Returns what each call of a model computes, in the order of execution.

    Args:
        model: A functional or Sequential model.
        columns: One array per input, in the model's order; the first examples are used.
    """
    flow = walk(model)
    recorded: list[list[Any]] = []

    def apply(call: Call, tensors: list[Any]) -> list[Any]:
        results = _results(call, tensors)
        recorded.append(results[:1])
        return results

    flat = rebuild(model, apply, class_of=None, flow=flow)
    probe = keras.Model(flat.inputs, [result for results in recorded for result in results])
    inputs = [keras.ops.convert_to_tensor(column[:EXAMPLES]) for column in columns]
    outputs = [np.asarray(value) for value in keras.tree.flatten(probe(inputs, training=False))]
    given = dict(zip(flow.inputs, (column[:EXAMPLES] for column in columns), strict=True))
    given.update({c.outputs[0]: out for c, out in zip(flow.calls, outputs, strict=True)})
    places = {value: place for place, c in enumerate(flow.calls) for value in c.outputs}
    return [
        LayerValue(
            call.name,
            call.kind,
            call,
            tuple(given[value] for value in call.inputs if value in given),
            output,
            tuple(places[value] for value in call.inputs if value in places),
        )
        for call, output in zip(flow.calls, outputs, strict=True)
    ]


def _results(call: Call, tensors: list[Any]) -> list[Any]:
    """The outputs of a call with other inputs, and its own other arguments."""
    args, kwargs = call.arguments(tensors)
    return list(keras.tree.flatten(call.operation(*args, **kwargs)))
