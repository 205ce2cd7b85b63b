"""Counts the multiply-accumulates (MACs) of one call of a layer, per example.

One multiplication with its addition counts as one, as in the MobileNetV2 paper: in convolutions,
dense and recurrent layers, attention, einsums and matrix products. Normalization, activations,
elementwise products, interpolation and pooling count as zero, and a look-up in a table too. What
can't be counted is None, never 0: a custom class that is not registered
(:func:`~tfnas.graph.registered_layers.register_layer`), a Lambda, a transform such as an FFT, and a
layer whose cost depends on a size that is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from tfnas.graph import attention_macs, recurrent_macs
from tfnas.graph.call_arguments import named_arguments
from tfnas.graph.functional import Call, Value, walk
from tfnas.graph.idle_layers import IDLE
from tfnas.graph.known_sizes import Shape, product, times, total
from tfnas.graph.operation_macs import OPERATIONS, UNCOUNTED_OPERATIONS, einsum_macs, places
from tfnas.graph.place_tables import reads_sizes_alone
from tfnas.graph.registered_layers import RegisteredLayer, class_of_keras, registered_layer
from tfnas.keras_private import followed_graph

if TYPE_CHECKING:
    import keras


def call_macs(call: Call) -> int | None:
    """Returns the number of MACs of a call; None where it is unknown."""
    record = registered_layer(call.operation)
    if record is not None:
        return _registered(record, call)
    base = class_of_keras(call.operation)
    if base is None:
        idle = type(call.operation).__name__ in IDLE or reads_sizes_alone(call)
        return 0 if idle else _of_graph(call)
    import keras

    kind = base.__name__
    if not issubclass(base, keras.layers.Layer):
        if kind in OPERATIONS:
            return OPERATIONS[kind](call)
        return None if kind in UNCOUNTED_OPERATIONS else 0
    counter = _LAYERS.get(kind)
    if counter is not None:
        return counter(call)
    if kind in _UNCOUNTED_LAYERS:
        return None
    return 0 if kind in _FREE_WITH_WEIGHTS or not weights_of(call.operation) else None


def layer_macs(layer: Any, inputs: Any, outputs: Any) -> int | None:
    """Returns the MACs of a layer that is called inside of another one; None where unknown.

    Args:
        layer: The layer.
        inputs: Shape of its input, or a list of them, the batch first.
        outputs: Shape of its output, or a list of them, the batch first.
    """
    return call_macs(Call(layer.name, layer, _values(inputs), _values(outputs)))


def uncounted(calls: Iterable[Call]) -> list[str]:
    """Returns the paths of the calls whose MACs are unknown, each once, sorted.

    Args:
        calls: The calls.
    """
    return sorted({call.name for call in calls if call_macs(call) is None})


def check_counted(calls: Iterable[Call], argument: str) -> None:
    """Raises ValueError where a limit on MACs can't be kept, since some layers are not counted.

    Args:
        calls: The calls of the model.
        argument: Name of the limit.
    """
    names = uncounted(calls)
    if names:
        raise ValueError(not_counted(argument, names))


def not_counted(argument: str, names: Iterable[str]) -> str:
    """Returns the message on a limit on MACs of a model with layers that can't be counted.

    Args:
        argument: Name of the limit.
        names: Paths of these layers.
    """
    return (
        f"{argument} must be left out where the MACs of a layer are unknown, got "
        f"{', '.join(names)}: register a class of your own with tfnas.register_layer(macs=...), "
        "fix the sizes of the model's inputs, or limit something else"
    )


def _registered(record: RegisteredLayer, call: Call) -> int | None:
    if record.macs is None:
        return None
    shapes = [[value.shape for value in values] for values in (call.inputs, call.outputs)]
    found = record.macs(call.operation, *(s[0] if len(s) == 1 else s for s in shapes))
    if found is not None and (isinstance(found, bool) or not isinstance(found, int) or found < 0):
        raise ValueError(
            f"macs of register_layer must return a whole number from 0 on, or None, got {found!r} "
            f"for {call.name!r} of class {type(call.operation).__name__}"
        )
    return found


def _of_graph(call: Call) -> int | None:
    """A model inside of another layer."""
    graph = followed_graph(call.operation)
    if graph is None or len(graph.inputs) != len(call.inputs):
        return None
    return total([call_macs(each) for each in walk(graph, inputs=call.inputs).calls])


def _convolution(call: Call) -> int | None:
    kernel = call.operation.kernel.shape  # (*sizes, channels in a group, filters)
    return times(product(kernel), places(call, call.outputs[0].shape))


def _transposed(call: Call) -> int | None:
    return times(product(call.operation.kernel.shape), places(call, call.inputs[0].shape))


def _separable(call: Call) -> int | None:
    layer = call.operation
    kernels = total([product(layer.depthwise_kernel.shape), product(layer.pointwise_kernel.shape)])
    return times(kernels, places(call, call.outputs[0].shape))


def _dense(call: Call) -> int | None:
    return times(call.inputs[0].shape[-1], product(call.outputs[0].shape[1:]))


def _einsum_dense(call: Call) -> int | None:
    layer = call.operation
    return einsum_macs(layer.equation, [call.inputs[0].shape, tuple(layer.kernel.shape)])


def _dot(call: Call) -> int | None:
    axes = call.operation.axes
    axis = axes if isinstance(axes, int) else axes[0]
    return times(product(call.outputs[0].shape[1:]), call.inputs[0].shape[axis])


def _reversible_embedding(call: Call) -> int | None:
    if not named_arguments(call).get("reverse", False):
        return 0
    return times(call.inputs[0].shape[-1], product(call.outputs[0].shape[1:]))


def _spectrogram(call: Call) -> int | None:
    """Two convolutions of each channel with a kernel, (frame, 1, bins); one for some modes."""
    layer, shape = call.operation, call.inputs[0].shape
    first = layer.data_format == "channels_first"
    length, channels = (shape[2], shape[1]) if first else (shape[1], shape[2])
    if length is None:
        return None
    step = layer.frame_step or layer.frame_length // 2
    frames = -(-length // step)
    if layer.padding == "valid":
        frames = (length - layer.frame_length) // step + 1
    kernels = [weight.shape for weight in layer.weights]
    return times(total([product(kernel) for kernel in kernels]), frames, channels)


def _time_distributed(call: Call) -> int | None:
    inputs, outputs = (v[0].shape for v in (call.inputs, call.outputs))
    inner, outer = ((shape[0], *shape[2:]) for shape in (inputs, outputs))
    return times(inputs[1], layer_macs(call.operation.layer, inner, outer))


def _bidirectional(call: Call) -> int | None:
    layer = call.operation
    counts = []
    for each in (layer.forward_layer, layer.backward_layer):
        output = each.compute_output_shape(call.inputs[0].shape)
        first = output[0] if isinstance(output, list | tuple) and _nested(output) else output
        counts.append(layer_macs(each, call.inputs[0].shape, tuple(first)))
    return total(counts)


def _nested(shape: Any) -> bool:
    return isinstance(shape[0], list | tuple)


def _inside(call: Call) -> int | None:
    """A wrapper that computes what the layer inside does."""
    shapes = [value.shape for value in call.outputs]
    return layer_macs(call.operation.layer, [value.shape for value in call.inputs], shapes)


_LAYERS: dict[str, Callable[[Call], int | None]] = {
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), _convolution),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _transposed),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _convolution),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _separable),
    **dict.fromkeys(("SimpleRNN", "LSTM", "GRU", "RNN"), recurrent_macs.recurrent),
    **dict.fromkeys(("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), recurrent_macs.recurrent),
    **dict.fromkeys(("SimpleRNNCell", "LSTMCell", "GRUCell"), recurrent_macs.cell),
    "StackedRNNCells": recurrent_macs.cell,
    "AdditiveAttention": attention_macs.additive,
    "Attention": attention_macs.dot_product,
    "Bidirectional": _bidirectional,
    "Dense": _dense,
    "Dot": _dot,
    "EinsumDense": _einsum_dense,
    "GroupedQueryAttention": attention_macs.grouped_query,
    "MultiHeadAttention": attention_macs.multi_head,
    "ReversibleEmbedding": _reversible_embedding,
    "STFTSpectrogram": _spectrogram,
    "Sequential": _of_graph,
    "SpectralNormalization": _inside,
    "TimeDistributed": _time_distributed,
}
# Code that Keras calls and does not know, and a transform.
_UNCOUNTED_LAYERS = frozenset(
    {
        "FlaxLayer",
        "JaxLayer",
        "Lambda",
        "MelSpectrogram",
        "Pipeline",
        "TFSMLayer",
        "TorchModuleWrapper",
    }
)
_FREE_WITH_WEIGHTS = {
    "BatchNormalization",
    "Embedding",
    "GroupNormalization",
    "LayerNormalization",
    "LayerScale",  # of keras.applications' ConvNeXt
    "Normalization",
    "PReLU",
    "RMSNormalization",
    "RandomCrop",  # its weights are the state of its random numbers
    "Rescaling",
    *IDLE,
}


def _values(shapes: Any) -> tuple[Value, ...]:
    listed = shapes if isinstance(shapes, list) else [shapes]
    return tuple(Value(tuple(shape), "float32") for shape in listed)


def elements(shape: Shape) -> int:
    """Returns the number of elements; an unknown size counts as 1."""
    return product([size or 1 for size in shape]) or 0


def weights_of(operation: keras.Operation) -> list[Any]:
    """Returns a layer's weights; an operation has none."""
    return list(getattr(operation, "weights", ()))
