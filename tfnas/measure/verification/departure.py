"""The first operator of a file that departs from the Keras model.

In a file with float activations every layer's output is looked for among the file's tensors by
its numbers, so that names, order and fusion do not matter. A layer whose output is in no tensor
was fused into a later one where a later one that depends on it is found; the first layer of which
that is not so departs. In a file with integer activations each operator adds some noise, and the
one that adds most is named.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from tfnas.measure.quantization_debugger.layer_names import LayerNames
from tfnas.measure.quantization_debugger.quantization_error import quantization_error
from tfnas.measure.verification.file_values import FileTensors
from tfnas.measure.verification.layer_values import LayerValue, layer_values
from tfnas.measure.verification.reasons import reason_of, reason_of_noise
from tfnas.tflite.artifact import Artifact

_FUSED = {
    *("BatchNormalization", "Rescaling", "Normalization", "Add", "Subtract", "Multiply", "Divide"),
    *("ReLU", "Relu", "Relu6", "Dropout", "Identity", "Reshape", "Flatten"),
    *("ZeroPadding1D", "ZeroPadding2D"),
}
_MOST_FUSED = 3  # layers after a convolution: BatchNormalization, an activation, a pad


@dataclasses.dataclass(frozen=True)
class Departure:
    """Where a file begins to differ from its model.

    Args:
        layer: Path of the Keras layer.
        operator: The operator in the file, such as "RESIZE_BILINEAR"; empty where none is known.
        before: Largest error of what the layer takes, as a fraction of its largest value.
        after: The same of what it gives. Of integer activations both are root mean squares.
        reason: Why, as far as a computation has shown it; empty: not known.
    """

    layer: str
    operator: str
    before: float
    after: float
    reason: str = ""

    def __str__(self) -> str:
        """Returns one sentence."""
        operator = f" ({self.operator})" if self.operator else ""
        because = f": {self.reason}" if self.reason else ""
        return (
            f"layer {self.layer!r}{operator} departs first: its inputs are off by "
            f"{self.before:.2g}, its output by {self.after:.2g}{because}"
        )


def first_departure(
    model: keras.Model, artifact: Artifact, columns: Sequence[np.ndarray], limit: float
) -> Departure | None:
    """Returns the first layer whose output a file of float activations does not hold.

    Args:
        model: The Keras model, without preprocessing in front.
        artifact: The file.
        columns: One array per input of the model.
        limit: Largest difference of a number that counts as equal, as a fraction of the largest.

    Returns:
        The layer; None where the file holds what every layer computes.
    """
    layers = layer_values(model, columns)
    values = FileTensors(artifact, model, columns, len(layers[0].output) if layers else 1)
    errors = [values.error_of(layer.output) for layer in layers]
    held = [error <= limit for error in errors]
    for place in reversed(range(len(layers))):
        if held[place]:
            for before in layers[place].before:
                held[before] = True
    if all(held):
        return None
    place = held.index(False)
    layer = layers[place]
    taken = max((errors[p] for p in layer.before if errors[p] <= limit), default=0.0)
    following = _following(layers, place)
    # Where the layer was fused, the file holds the output of one of those after it alone.
    given = min(errors[p] for p in (place, *following))
    reason = reason_of(layer, [layers[p] for p in following], values, limit)
    operator = _operator(model, artifact, layer, values)
    return Departure(layer.name, operator, taken, given, reason)


def _following(layers: Sequence[LayerValue], place: int) -> list[int]:
    """Places of layers that take one layer's output alone, in a row, as fused ones do."""
    found: list[int] = []
    while len(found) < _MOST_FUSED:
        users = [n for n, layer in enumerate(layers) if place in layer.before]
        if len(users) != 1 or layers[users[0]].before != (place,):
            return found
        place = users[0]
        if len(layers[place].inputs) != 1 or not _may_be_fused(layers[place]):
            return found
        found.append(place)
    return found


def _may_be_fused(layer: LayerValue) -> bool:
    """Whether the converter may make one operator of a layer and the one before it."""
    function = getattr(layer.operation, "activation", None)
    if layer.kind == "Activation":
        return getattr(function, "__name__", "") in ("linear", "relu", "relu6")
    return layer.kind in _FUSED


def _operator(
    model: keras.Model, artifact: Artifact, layer: LayerValue, values: FileTensors
) -> str:
    """The operator that the layer became: by its name, else by the numbers of its output."""
    names = LayerNames(model)
    with_output = [op for op in artifact.graph.operators if op.outputs]
    named = [op for op in with_output if layer.name in names.mentioned(op.outputs[0].name)]
    if named:
        return named[-1].name
    nearest = values.nearest(layer.output)
    found = [op for op in with_output if nearest in {t.index for t in op.outputs}]
    return found[0].name if found else ""


def noisiest(
    model: keras.Model, artifact: Artifact, columns: Sequence[np.ndarray]
) -> Departure | None:
    """Returns the operator of a quantized file that adds most noise.

    Args:
        model: The Keras model, without preprocessing in front.
        artifact: The file.
        columns: One array per input of the model.

    Returns:
        The operator; None where the file can't be compared operator by operator.
    """
    data = dict(zip((tensor.name for tensor in model.inputs), columns, strict=True))
    try:
        found = quantization_error(model, artifact, data, keep_float=())
    except (ValueError, RuntimeError):
        return None
    if not found.layers:
        return None
    worst = found.layers[0]
    before, reason = max(worst.noise - worst.added, 0.0), reason_of_noise(worst, found.unaligned)
    return Departure(worst.layer, worst.operator, before**0.5, worst.noise**0.5, reason)
