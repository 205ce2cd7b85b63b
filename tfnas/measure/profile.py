"""What a model costs before it is run: parameters, multiply-accumulates, memory.

MACs count one multiplication with its addition, as MobileNetV2's paper does (300 million
for 1.0 at 224x224): convolutions, dense layers, einsums and matrix products.
Normalization that folds into a convolution, activations, additions and pooling count
nothing.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

from tfnas.graph.functional import Call, Value, walk
from tfnas.graph.macs import call_macs, elements, weights_of
from tfnas.table import table

# No operator at all in the file: output and input are one buffer.
_SAME_BUFFER = {
    *("Dropout", "SpatialDropout2D", "Flatten", "Reshape", "GaussianNoise", "Identity"),
    *("GaussianDropout", "AlphaDropout", "ActivityRegularization"),
}
# Folded into the operator before them, where nothing else needs what that one gives.
_FOLDED = {
    *("BatchNormalization", "ReLU", "Activation", "Rescaling", "Normalization", "LeakyReLU"),
}


@dataclasses.dataclass(frozen=True)
class LayerProfile:
    """Cost of one call of a layer.

    Args:
        name: The layer's name.
        kind: The layer's class.
        output_shape: Shape of its (first) output without the batch.
        parameters: Number of weights; 0 where an earlier call of the layer had them.
        macs: Multiply-accumulates for one example, None where they can't be counted.
    """

    name: str
    kind: str
    output_shape: tuple[int | None, ...]
    parameters: int
    macs: int | None


@dataclasses.dataclass(frozen=True)
class Profile:
    """Cost of a model for one example.

    Args:
        name: The model's name.
        layers: Its calls in the order of execution.
        parameters: Number of weights, trainable or not.
        macs: Multiply-accumulates of all layers that can be counted.
        peak_activations: Most activation elements alive at once, running one operator
            after the other, with normalization and activation folded away.
    """

    name: str
    layers: tuple[LayerProfile, ...]
    parameters: int
    macs: int
    peak_activations: int

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Layers with weights whose MACs are not known."""
        return tuple(layer.name for layer in self.layers if layer.macs is None)

    def peak_activation_bytes(self, bytes_per_element: int = 1) -> int:
        """Returns the activation memory in bytes: 1 an element for int8, 4 for float32."""
        return self.peak_activations * bytes_per_element

    def __str__(self) -> str:
        rows = [
            [
                layer.name,
                layer.kind,
                "x".join("?" if n is None else str(n) for n in layer.output_shape),
                f"{layer.parameters:,}",
                "not counted" if layer.macs is None else f"{layer.macs:,}",
            ]
            for layer in self.layers
        ]
        total = (
            f"{self.name}: {self.parameters:,} parameters, {self.macs:,} MACs, peak activations "
            f"{self.peak_activation_bytes(1):,} bytes in int8, "
            f"{self.peak_activation_bytes(4):,} in float32"
        )
        return (
            table(["layer", "kind", "output", "parameters", "MACs"], rows, right=3) + "\n" + total
        )


def profile(model: Any) -> Profile:
    """Counts what a model costs for one example.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> tfnas.profile(model).macs
        32

    Args:
        model: A built functional or Sequential Keras 3 model, nested models included.

    Returns:
        Parameters, MACs and output shape a layer, and the peak of the activations.

    Raises:
        ValueError: The model is not built, is subclassed, or has an input of open size
            (other than the batch).
    """
    flow = walk(model)
    open_inputs = [value.shape for value in flow.inputs if None in value.shape[1:]]
    if open_inputs:
        raise ValueError(f"model must have inputs of known size, got {open_inputs[0]}")
    seen: set[int] = set()
    layers = []
    for call in flow.calls:
        first = id(call.operation) not in seen
        seen.add(id(call.operation))
        weights = sum(elements(w.shape) for w in weights_of(call.operation)) if first else 0
        shape = call.outputs[0].shape[1:]
        layers.append(LayerProfile(call.name, call.kind, shape, weights, call_macs(call)))
    return Profile(
        model.name,
        tuple(layers),
        model.count_params(),
        sum(layer.macs or 0 for layer in layers),
        _peak(flow.inputs, flow.calls, flow.outputs),
    )


def _peak(inputs: tuple[Value, ...], calls: tuple[Call, ...], outputs: tuple[Value, ...]) -> int:
    """Most elements alive at once, each value from its making to its last use."""
    home: dict[Value, Value] = {value: value for value in inputs}
    uses = Counter([*outputs, *(value for call in calls for value in call.inputs)])
    for call in calls:
        alone = len(call.inputs) == len(call.outputs) == 1
        folded = call.kind in _FOLDED and alone and uses[call.inputs[0]] == 1
        in_place = folded or (call.kind in _SAME_BUFFER and alone)
        for output in call.outputs:
            shared = in_place and elements(output.shape[1:]) == elements(call.inputs[0].shape[1:])
            home.setdefault(output, home[call.inputs[0]] if shared else output)
    last = {home[value]: step for step, call in enumerate(calls) for value in call.inputs}
    last.update({home[value]: len(calls) for value in outputs})
    alive = {home[value] for value in inputs}
    peak = 0
    for step, call in enumerate(calls):
        alive |= {home[output] for output in call.outputs}
        peak = max(peak, sum(elements(value.shape[1:]) for value in alive))
        alive = {value for value in alive if last.get(value, step) > step}
    return peak
