"""Static cost of a model: parameters, multiply-accumulates (MACs) and activation memory.

One MAC is a multiplication with its addition, as in the MobileNetV2 paper (300 million for
width 1.0 at 224x224); :mod:`tfnas.graph.macs` says what counts. Where a layer can't be counted, the
total is a lower bound, and is called one.
"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any, overload

from tfnas.graph.batchnorm import fitting_columns
from tfnas.graph.functional import Value, Walk, walk
from tfnas.graph.functional_form import opaque_form
from tfnas.graph.macs import call_macs, elements, weights_of
from tfnas.measure.counted_profile import CountedProfile
from tfnas.measure.file_profile import FileProfile, profile_file
from tfnas.table import TextTable
from tfnas.tflite.artifact import FILES, Artifact, as_artifact

if TYPE_CHECKING:
    import keras

    from tfnas.data.data_types import Arrays

# These layers have no operator in the file: their output is the buffer of their input.
_SAME_BUFFER = {
    "ActivityRegularization",
    "AlphaDropout",
    "Dropout",
    "Flatten",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
    "Reshape",
    "SpatialDropout2D",
}
# These layers are folded into the operator before them if they are its only consumer.
_FOLDED = {
    "Activation",
    "BatchNormalization",
    "LeakyReLU",
    "Normalization",
    "ReLU",
    "Rescaling",
}


@dataclasses.dataclass(frozen=True)
class LayerProfile:
    """Cost of one call of a layer.

    Args:
        name: The layer's name.
        kind: The layer's class.
        output_shape: Shape of its first output without the batch.
        parameters: Number of weights; 0 for further calls of a shared layer.
        macs: Multiply-accumulates for one example; None if they can't be counted.
    """

    name: str
    kind: str
    output_shape: tuple[int | None, ...]
    parameters: int
    macs: int | None


@dataclasses.dataclass(frozen=True, repr=False)
class Profile(CountedProfile):
    """Cost of a model for one example. Prints as a table of its layers.

    Args:
        name: The model's name.
        layers: The calls of its layers, in the order of execution.
        parameters: Number of weights, trainable or not.
        macs: Multiply-accumulates of all layers that can be counted: a lower bound where some are
            `uncounted`.
        peak_activations: Most activation elements alive at once if operators run one after the
            other, with normalization and activations folded.
    """

    name: str
    layers: tuple[LayerProfile, ...]
    parameters: int
    macs: int
    peak_activations: int

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Layers whose MACs are not known."""
        return tuple(dict.fromkeys(layer.name for layer in self.layers if layer.macs is None))

    def peak_activation_bytes(self, bytes_per_element: int = 1) -> int:
        """Returns the activation memory in bytes: 1 an element for int8, 4 for float32."""
        return self.peak_activations * bytes_per_element

    def summary(self) -> str:
        """Returns the totals of the model as one line."""
        least = "at least " if self.uncounted else ""
        return (
            f"{self.name}: {self.parameters:,} parameters, {least}{self.macs:,} MACs, "
            f"peak activations {self.peak_activation_bytes(1):,} bytes in int8, "
            f"{self.peak_activation_bytes(4):,} in float32"
        )

    def headers(self) -> list[str]:
        """Returns the titles of the columns."""
        return ["layer", "kind", "output", "parameters", "MACs"]

    def rows(self) -> list[list[str]]:
        """Returns one row per call of a layer, in the order of execution."""
        return [
            [
                layer.name,
                layer.kind,
                "x".join("any" if n is None else str(n) for n in layer.output_shape),
                f"{layer.parameters:,}",
                "not counted" if layer.macs is None else f"{layer.macs:,}",
            ]
            for layer in self.layers
        ]

    def tables(self) -> list[TextTable]:
        """Returns the table of the layers."""
        return [TextTable(self.headers(), self.rows(), right=3)]


@overload
def profile(model: Artifact | str | os.PathLike[str], data: Arrays | None = ...) -> FileProfile: ...


@overload
def profile(model: keras.Model, data: Arrays | None = ...) -> Profile: ...


def profile(model: Any, data: Arrays | None = None) -> Profile | FileProfile:
    """Counts parameters, MACs and activation memory of a model or a file for one example.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> tfnas.profile(model).macs
        32

    Args:
        model: A Keras 3 model; nested and subclassed models in it are opened. One that can't be
            is a single layer, whose MACs are not counted. Or a `.tflite` file: an
            :class:`tfnas.Artifact` or its path.
        data: Inputs whose shapes tell the sizes that the model leaves open, such as the length of
            a series: an array (examples, ...), or a list or dictionary of such arrays.

    Returns:
        Parameters, MACs and output shape of each layer, and the peak of the activations. Of a file
        operators, bytes of weights, MACs and the peak of the activations.

    Raises:
        ValueError: The model is not built, or has an input with a dimension of
            None other than the batch and there is no data, or the data has other inputs.
    """
    if isinstance(model, FILES):
        return profile_file(as_artifact(model), None if data is None else _columns(data))
    model = opaque_form(model, data)
    flow = walk(model if data is None else _sized(model, data))
    pairs = zip(model.inputs, flow.inputs, strict=True)
    open_inputs = [(t.name, value.shape) for t, value in pairs if None in value.shape[1:]]
    if open_inputs:
        name, shape = open_inputs[0]
        raise ValueError(
            f"model must have inputs of known shape, got {shape} for {name!r}: data with inputs of "
            "one shape tells the sizes"
        )
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
        _peak(flow),
    )


def _columns(data: Any) -> list[Any]:
    """The arrays of a file's inputs, in its order."""
    if isinstance(data, dict):
        raise ValueError("data must be an array or a list in the order of the file's inputs")
    return list(data) if isinstance(data, list | tuple) else [data]


def _sized(model: keras.Model, data: Arrays) -> keras.Model:
    """Returns a model whose inputs have the sizes of the data, where it leaves them open."""
    import keras

    from tfnas.keras_private import functional_inside

    arrays = fitting_columns(model, data)
    shapes = [(None, *array.shape[1:]) for array in arrays]
    inner = functional_inside(model)
    if shapes == [tuple(each.shape) for each in inner.inputs]:
        return model
    inputs = [
        keras.Input(batch_shape=shape, dtype=each.dtype, name=each.name)
        for shape, each in zip(shapes, inner.inputs, strict=True)
    ]
    packed = keras.tree.pack_sequence_as(inner.input, inputs)
    return keras.models.clone_model(inner, input_tensors=packed)


def _peak(flow: Walk) -> int:
    """Most elements alive at once: each value lives from its computation to its last use."""
    buffer: dict[Value, Value] = {value: value for value in flow.inputs}
    for call in flow.calls:
        one_to_one = len(call.inputs) == len(call.outputs) == 1
        folded = call.kind in _FOLDED and one_to_one and flow.uses[call.inputs[0]] == 1
        in_place = folded or (call.kind in _SAME_BUFFER and one_to_one)
        for output in call.outputs:
            shared = in_place and elements(output.shape[1:]) == elements(call.inputs[0].shape[1:])
            buffer.setdefault(output, buffer[call.inputs[0]] if shared else output)
    last = {buffer[value]: step for step, call in enumerate(flow.calls) for value in call.inputs}
    last.update({buffer[value]: len(flow.calls) for value in flow.outputs})
    alive = {buffer[value] for value in flow.inputs}
    peak = 0
    for step, call in enumerate(flow.calls):
        alive |= {buffer[output] for output in call.outputs}
        peak = max(peak, sum(elements(value.shape[1:]) for value in alive))
        alive = {value for value in alive if last.get(value, step) > step}
    return peak
