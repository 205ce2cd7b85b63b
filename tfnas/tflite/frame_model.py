"""A model for one frame of a sequence at a time, whose state the file gets and gives.

:func:`frame_model` rebuilds a model of recurrent layers, causal convolutions and layers that take
each frame by itself for inputs of one frame. In the place of what looks back there is a
placeholder: the step of a recurrent layer, and the window of a causal convolution, the last
frames that its kernel covers. :mod:`tfnas.tflite.passes.write_states` writes their operators.
"""

from __future__ import annotations

from typing import Any

import keras

from tfnas.graph.functional import Call, LayerCopies, Walk, walk
from tfnas.graph.idle_layers import IDLE
from tfnas.graph.registered_layers import register_layer
from tfnas.keras_private import functional_inside
from tfnas.quantization.fake_quant import FakeQuant
from tfnas.quantization.fused_lstm import QuantizedFusedLstm
from tfnas.quantization.integer_layers import ChannelAffine
from tfnas.quantization.quantized_kernel import PACKAGE, QuantizedKernel
from tfnas.quantization.recurrent_cells import (
    KINDS,
    has_mask,
    initial_states,
    reason_for_float_loop,
)
from tfnas.quantization.recurrent_forms import LeavesPlaceholder, QuantizedRecurrent, placeholder

_FRAME_BY_FRAME = {
    *IDLE,
    "Activation",
    "Add",
    "Average",
    "BatchNormalization",
    "Concatenate",
    "Dense",
    "ELU",
    "Embedding",
    "FakeQuant",
    "FloatInput",
    "LayerNormalization",
    "LeakyReLU",
    "Maximum",
    "Minimum",
    "Multiply",
    "Normalization",
    "PReLU",
    "RMSNormalization",
    "ReLU",
    "Relu",
    "Relu6",
    "Rescaling",
    "Sigmoid",
    "Softmax",
    "Subtract",
    "Tanh",
}
_WHOLE = "Without streaming=True the file takes whole sequences"
_COLLECTS = "a recurrent layer with return_sequences=False collects what the frames say"
_WAYS_OUT = {
    "Bidirectional": "a recurrent layer of one direction has a step",
    "TimeDistributed": "Dense and activations take each frame by themselves, without it",
    "SeparableConv1D": "Conv1D(padding='causal') and Dense layers have a form",
    "DepthwiseConv1D": "Conv1D(padding='causal') has a form",
    **dict.fromkeys(("Flatten", "GetItem", "Mean", "Max", "Sum"), _COLLECTS),
    **dict.fromkeys(("GlobalAveragePooling1D", "GlobalMaxPooling1D"), _COLLECTS),
}


def _way_out(kind: str) -> str:
    """Returns the end of a message: what a file of frames can have instead of a class of layers.

    Args:
        kind: Name of the class.
    """
    own = f": {_WAYS_OUT[kind]}" if kind in _WAYS_OUT else ""
    return f"{own}. {_WHOLE}"


_OVER_LAST_AXIS = ("BatchNormalization", "Concatenate", "LayerNormalization", "Softmax")


@register_layer(macs=0, integer_form="compute")
@keras.saving.register_keras_serializable(PACKAGE)
class FrameStep(LeavesPlaceholder, keras.layers.Wrapper):
    """One step of a recurrent layer, as a placeholder.

    Args:
        layer: A recurrent layer, or one with fake quantization.
    """

    def build(self, input_shape: Any = None) -> None:
        """Builds the layer."""
        if not self.layer.built:
            self.layer.build(input_shape)
        self.built = True

    def call(self, x: Any) -> Any:
        """Returns the output of one step, of a placeholder.

        Args:
            x: A frame, (1, 1, features).
        """
        layer: Any = getattr(self.layer, "layer", self.layer)
        return placeholder(self.name, x, layer.units, layer.return_sequences)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the layer's output shape."""
        return self.layer.compute_output_shape(input_shape)


@register_layer(macs=0, integer_form="compute")
@keras.saving.register_keras_serializable(PACKAGE)
class FrameWindow(LeavesPlaceholder, keras.layers.Layer):
    """The last frames, the newest at the end, as a placeholder.

    Args:
        size: Number of frames.
    """

    def __init__(self, size: int, **options: Any) -> None:
        super().__init__(**options)
        self.size = size

    def call(self, x: Any) -> Any:
        """Returns the window of a frame.

        Args:
            x: A frame, (1, 1, channels).
        """
        return placeholder(self.name, x, int(x.shape[-1]), self.size)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of a window."""
        return (input_shape[0], self.size, *input_shape[2:])

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "size": self.size}


def frame_model(model: keras.Model) -> tuple[keras.Model, tuple[bool, ...]]:
    """Returns a model that takes one frame, with placeholders for what looks back.

    Args:
        model: A functional or Sequential model, quantization-aware or not, whose inputs are
            (batch, steps, ...).

    Returns:
        A model of inputs (1, 1, ...). Where the model returns sequences, it returns one frame.
        And whether each of its outputs is one frame of a sequence, not the output of a last step.

    Raises:
        ValueError: A layer looks ahead, at the whole sequence, or back in a way that is not known.
    """
    frames = _Frames(model)
    return frames.model(), tuple(value in frames.in_time for value in frames.flow.outputs)


class _Frames:
    """Rebuilds the calls of a model for one frame."""

    def __init__(self, original: keras.Model) -> None:
        self.original, self.copies = original, LayerCopies()
        self.flow: Walk = walk(original)
        self.in_time = {value for value in self.flow.inputs if len(value.shape) >= 2}

    def model(self) -> keras.Model:
        old = functional_inside(self.original)
        for tensor in old.inputs:
            if len(tensor.shape) < 3 and "int" not in tensor.dtype:
                raise ValueError(
                    "model must have inputs of shape (batch, steps, features) for a file of "
                    f"frames, got {tensor.name!r} {tensor.shape}"
                )
        inputs = [
            keras.Input(batch_shape=(1, 1, *t.shape[2:]), dtype=t.dtype, name=t.name)
            for t in old.inputs
        ]
        tensors: dict[Any, Any] = dict(zip(self.flow.inputs, inputs, strict=True))
        for call in self.flow.calls:
            results = self._apply(call, [tensors[value] for value in call.inputs])
            tensors.update(zip(call.outputs, results, strict=True))
        outputs = [tensors[value] for value in self.flow.outputs]
        self.copies.carry_weights()
        return keras.Model(
            keras.tree.pack_sequence_as(old.input, inputs),
            keras.tree.pack_sequence_as(old.output, outputs),
            name=self.original.name,
        )

    def _apply(self, call: Call, tensors: list[Any]) -> list[Any]:
        if not any(value in self.in_time for value in call.inputs):
            return self.copies.call(call, tensors)
        inner = self._inner(call)
        kind = type(inner).__name__
        if kind in KINDS:
            self._check_step(call, inner)
            if inner.return_sequences:
                self.in_time.update(call.outputs)
            name = self.copies.unique(f"frame_{call.operation.name}")
            return [FrameStep(self.copies.of(call.operation), name=name)(tensors[0])]
        self.in_time.update(call.outputs)
        if kind == "Conv1D":
            return [self._window(call, inner, tensors[0])]
        last_axis = {len(value.shape) - 1 for value in call.inputs} | {-1}
        by_frame = kind in _FRAME_BY_FRAME and (
            kind not in _OVER_LAST_AXIS or _axes(inner) <= last_axis
        )
        if not by_frame:
            raise ValueError(
                f"layers must take each frame by itself, or only those before it, for a file of "
                f"frames, got {call.name!r} of class {kind}{_way_out(kind)}"
            )
        return self.copies.call(call, tensors)

    @staticmethod
    def _inner(call: Call) -> Any:
        """The layer that computes, inside of fake quantization."""
        wrappers = (QuantizedKernel, ChannelAffine)
        return call.operation.layer if isinstance(call.operation, wrappers) else call.operation

    def _check_step(self, call: Call, layer: Any) -> None:
        rounded = isinstance(call.operation, QuantizedRecurrent)
        reason = None if rounded else reason_for_float_loop(call)
        if isinstance(call.operation, QuantizedFusedLstm):
            reason = "it has the ranges of a fused operator, QuantSpec(recurrent='loop') has those"
            reason += " of a step"
        if has_mask(call):
            reason = "it gets a mask"
        if initial_states(call):
            reason = "it gets an initial state"
        if layer.return_state:
            reason = "it returns its state"
        if layer.go_backwards:
            reason = "it starts at the last frame"
        if reason is not None:
            raise ValueError(
                f"layers must have a step for a file of frames, got {call.name!r}: {reason}. "
                f"{_WHOLE}"
            )

    def _window(self, call: Call, layer: Any, x: Any) -> Any:
        """A causal convolution of a window, of which the newest output remains."""
        size, stride, dilation = (
            int(value[0]) for value in (layer.kernel_size, layer.strides, layer.dilation_rate)
        )
        if stride != 1 or not (layer.padding == "causal" or size == 1):
            raise ValueError(
                "convolutions must have padding='causal' and stride 1 for a file of frames, got "
                f"{call.name!r} with padding={layer.padding!r} and stride {stride}. {_WHOLE}"
            )
        frames = (size - 1) * dilation + 1
        if frames > 1:
            name = self.copies.unique(f"{layer.name}_frames")
            x = FrameWindow(frames, name=name)(x)
            rounds = self._rounding_before(call)
            if rounds is not None:  # the frames before are on the same grid
                name = self.copies.unique(f"{name}_range")
                again = {**rounds.get_config(), "relu": None, "after_float": False, "name": name}
                rounded = FakeQuant.from_config(again)
                self.copies.set_later(rounded, rounds.get_weights())
                x = rounded(x)
        wrapper, config = call.operation, layer.get_config()
        config["padding"] = "valid"
        if wrapper is layer:
            return self.copies.of(layer, padding="valid")(x)
        inside = keras.saving.serialize_keras_object(type(layer).from_config(config))
        return self.copies.of(wrapper, layer=inside)(x)

    def _rounding_before(self, call: Call) -> FakeQuant | None:
        """The fake quantization that the input of a convolution comes from."""
        producer = self.flow.producers.get(call.inputs[0])
        while producer is not None and producer.kind in IDLE:
            producer = self.flow.producers.get(producer.inputs[0])
        if producer is not None and isinstance(producer.operation, FakeQuant):
            return producer.operation
        return None


def _axes(layer: Any) -> set[int]:
    axis = layer.axis
    return set(axis) if isinstance(axis, list | tuple) else {axis}
