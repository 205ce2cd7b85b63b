"""Normal form of a model: a flat graph with one operation per layer.

Nested models and layers registered as "open" are unfolded; a layer's `activation` becomes a layer
of its own; a separable convolution becomes a depthwise and a pointwise one, as in the file; a sum,
difference, product or quotient of a tensor and a number becomes a Rescaling; a stack becomes a
concatenation, since both have one scale in the file; Bidirectional and TimeDistributed become the
layers inside of them; an activation function of the user's own becomes the operations that it
calls; a constant array that is added or multiplied is the output of a layer of its own; a one-hot
CategoryEncoding compares integers;
an average over whole images becomes a global one, whose output has a range of its own: TFLite's
pooling rounds means to the steps of its inputs, though means are far smaller. Function and weights
stay the same.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tfnas.graph.functional import Call, LayerCopies, rebuild, walk
from tfnas.keras_private import operations_between
from tfnas.quantization.activation_calls import opened_activation
from tfnas.quantization.activation_forms import (
    arithmetic_form,
    hard_silu,
    sixteen_bit_activation,
    squared,
)
from tfnas.quantization.attention_forms import averaged_places, opened_attention, plain_attention
from tfnas.quantization.attention_scores import Note
from tfnas.quantization.constant_forms import filled_with_zeros, with_constant_input
from tfnas.quantization.dot_forms import opened_dot
from tfnas.quantization.einsum_axes import output_sizes
from tfnas.quantization.embedding_forms import opened_table
from tfnas.quantization.integer_layers import (
    HARD_SILU,
    OneHotCategories,
    finds_categories,
)
from tfnas.quantization.layer_roles import KERNEL_LAYERS, activation_name, activation_of
from tfnas.quantization.mask_forms import opened_masking
from tfnas.quantization.recurrent_cells import KINDS
from tfnas.quantization.reduction_forms import summed
from tfnas.quantization.sequence_forms import (
    opened_wrapper,
    reversed_places,
    rolled_places,
    sliced_parts,
    zeroed_steps,
)
from tfnas.quantization.sum_forms import as_difference, sums_of_shapes

_SPLIT = (*KERNEL_LAYERS, "Conv1DTranspose", "SeparableConv1D", "SeparableConv2D")
# Of these the kernels stay float, and other parts as `QuantSpec.layers` says by their names.
_IN_PARTS = (*_SPLIT, *KINDS, "TimeDistributed")


@dataclasses.dataclass(frozen=True)
class Origins:
    """Where layers of a normal form come from: (path, class) in the model, by the layer's id.

    Args:
        kernels: Of the parts of layers with a kernel.
        sums: Of the layers that compute a sum as a difference.
        parts: Of the layers that compute an activation function with 16 bits.
        attention: Of the operations inside of attention the path of its layer in the model.
    """

    kernels: dict[int, tuple[str, str]] = dataclasses.field(default_factory=dict)
    sums: dict[int, tuple[str, str]] = dataclasses.field(default_factory=dict)
    parts: dict[int, tuple[str, str, str]] = dataclasses.field(default_factory=dict)
    attention: dict[int, str] = dataclasses.field(default_factory=dict)

    def note_kernel(self, part: Any, call: Call) -> None:
        """Notes a part of a layer with a kernel."""
        self.kernels[id(part)] = call.name, call.kind

    def note_attention(self, call: Call, made: Sequence[Any]) -> None:
        """Notes the operations that compute an attention layer."""
        self.attention.update(dict.fromkeys(map(id, made), call.name))

    def of_kernel(self, call: Call) -> tuple[str, str] | None:
        """The path and class of the layer with a kernel that a call is a part of."""
        return self.kernels.get(id(call.operation))

    def identity(self, call: Call) -> tuple[str, str]:
        """The name and class that a call without a kernel has in the original model."""
        return self.sums.get(id(call.operation), (call.name, call.kind))

    def is_part(self, call: Call) -> bool:
        """Whether a call is a part of an activation function, which is not float then."""
        return id(call.operation) in self.parts

    def name_inside(self, call: Call, part: str) -> str | None:
        """The name of a part of attention, which is said by its layer's; None for other calls."""
        path = self.attention.get(id(call.operation))
        return None if path is None else f"{path.replace('/', '_')}_{part}"

    def names(self, call: Call) -> tuple[str | None, ...]:
        """The names by which a specification may call a layer without a kernel."""
        own = (*self.identity(call), activation_name(call))
        return self.parts.get(id(call.operation), own)


def normal_form(
    model: keras.Model, bits: int = 8, stays_float: Callable[..., bool] = lambda *names: False
) -> tuple[keras.Model, Origins]:
    """Returns a flat functional model that computes the same; see the module.

    Args:
        model: A built functional or Sequential model.
        bits: Bits of the activations. With 16, layers without a 16-bit kernel are replaced by
            layers that have one.
        stays_float: Whether a layer is left whole as it is, by its names: see
            :meth:`tfnas.QuantSpec.leaves_float`.

    Returns:
        The model, and where its layers come from.
    """
    flow = walk(model)
    copies = LayerCopies(kept_names=[call.operation.name for call in flow.calls])
    split: dict[int, list[Any]] = {}
    origins = Origins()

    def parts_of(layer: Any, call: Call, x: Any = None, within: str = "") -> list[Any]:
        if id(layer) not in split:
            known = {} if x is None else output_sizes(layer, x)
            if within:  # "look_key", where each attention has a "key"
                known["name"] = f"{within.replace('/', '_')}_{layer.name}"
            split[id(layer)] = _split_layer(layer, copies, known)
            for part in split[id(layer)]:
                origins.note_kernel(part, call)
        return split[id(layer)]

    def other_function(operation: Any, function: str | None, call: Call, tensor: Any) -> Any:
        opened = opened_activation(operation, call.name, tensor, apply)
        if opened is not None:
            return opened
        few = 8 if stays_float(call.name, call.kind, function) else bits
        return _other_activation(operation, function, call, tensor, copies, few, origins)

    def apply(call: Call, tensors: list[Any], within: str = "") -> list[Any]:
        layer = call.operation
        if call.kind not in _IN_PARTS and stays_float(call.name, call.kind, activation_name(call)):
            return copies.call(call, tensors)  # parts of a float layer would be rounded apart
        inside = functools.partial(apply, within=call.name)
        attended = _attention(call, tensors, copies, inside, origins.note_kernel, bits)
        if attended is not None:
            if not within:
                origins.note_attention(call, operations_between(tensors, attended))
            return attended
        if (output := _arithmetic(call, tensors, copies, bits)) is not None:
            return [output]
        if call.kind not in _SPLIT and len(tensors) == 1:
            replaced = other_function(layer, activation_name(call), call, tensors[0])
            if replaced is not None:
                return [replaced]
        opened = opened_wrapper(call, tensors, copies, lambda inner: parts_of(inner, call), apply)
        if opened is not None:
            return opened
        if id(call) in sums:
            return [_difference(call, tensors, copies, origins)]
        if (other := _other_operations(call, tensors, copies)) is not None:
            return other
        if call.kind not in _SPLIT:
            return copies.call(call, tensors)
        (tensor,) = tensors
        for part in parts_of(layer, call, tensor, within):
            replaced = other_function(part, activation_of(part), call, tensor)
            tensor = part(tensor) if replaced is None else replaced
        return [tensor]

    sums = sums_of_shapes(flow) if bits > 8 else set()
    flat = rebuild(model, apply, class_of=None, flow=flow)
    copies.carry_weights()
    return flat, origins


def _attention(
    call: Call,
    tensors: list[Any],
    copies: LayerCopies,
    apply: Callable[..., list[Any]],
    note: Note,
    bits: int,
) -> list[Any] | None:
    """The outputs of attention, or of a mean over its places, by plain layers; None for others."""
    if (opened := opened_attention(call, tensors, apply)) is not None:
        return opened
    if (outputs := plain_attention(call, tensors, copies, note, bits)) is not None:
        return outputs
    return averaged_places(call, tensors, copies)


def _difference(call: Call, tensors: list[Any], copies: LayerCopies, origins: Origins) -> Any:
    """The output of a sum, as a difference."""
    output, made = as_difference(call, tensors, copies)
    origins.sums.update({id(part): (call.name, call.kind) for part in made})
    return output


def _other_operations(call: Call, tensors: list[Any], copies: LayerCopies) -> list[Any] | None:
    """The outputs of a call by other operations; None for calls that have no other form."""
    if finds_categories(call):
        return [_one_hot(call, tensors, copies)]
    outputs = zeroed_steps(call, tensors, copies) or reversed_places(call, tensors)
    outputs = outputs or sliced_parts(call, tensors) or rolled_places(call, tensors, copies)
    outputs = outputs or opened_masking(call, tensors) or opened_dot(call, tensors, copies)
    if outputs is not None:
        return outputs
    for form in (with_constant_input, summed, filled_with_zeros, opened_table):
        if (output := form(call, tensors, copies)) is not None:
            return [output]
    return None


def _arithmetic(call: Call, tensors: list[Any], copies: LayerCopies, bits: int) -> Any:
    """The output of a merge, a Rescaling or an average over whole images; None for others."""
    merged = _merge_pairwise(call, tensors, copies, bits)
    if merged is not None:
        return merged
    if call.kind == "Stack" and len(tensors) > 1:
        return _concatenated(call, tensors, copies, bits)
    if call.kind == "Multiply" and len(call.inputs) == 2 and call.inputs[0] == call.inputs[1]:
        name = copies.unique(call.operation.name)
        return squared(tensors[0], keras.layers.Multiply(name=name))
    affine = _scale_and_offset(call)
    if affine is not None:
        return _rescaled(call, tensors[0], copies, *affine)
    if bits <= 8 and _averages_whole_images(call):
        name = copies.unique(call.operation.name)
        return keras.layers.GlobalAveragePooling2D(keepdims=True, name=name)(tensors[0])
    return None


def _other_activation(
    operation: Any,
    function: str | None,
    call: Call,
    tensor: Any,
    copies: LayerCopies,
    bits: int,
    origins: Origins,
) -> Any:
    """An activation in the form that has kernels of these bits; None where it has them itself.

    Args:
        operation: The layer or operation.
        function: Name of its function.
        call: The call that it is of.
        tensor: Its input.
        copies: Gives new layers their names.
        bits: Bits of the activations.
        origins: Where it notes the parts of a function of 16 bits.
    """

    def part(layer: Any) -> Any:
        origins.parts[id(layer)] = call.name, call.kind, function or ""
        return layer

    is_relu = isinstance(operation, keras.layers.ReLU) and operation.negative_slope
    if is_relu and not operation.threshold and operation.max_value is None:
        name = copies.unique(operation.name)
        return keras.layers.LeakyReLU(operation.negative_slope, name=name)(tensor)
    if bits <= 8:
        return None
    if {function, type(operation).__name__} & HARD_SILU:
        return hard_silu(tensor, copies.unique, part)
    if function is None:
        return None
    base = f"{operation.name}_16_bits"
    if (output := arithmetic_form(function, tensor, base, copies.unique, part)) is not None:
        return output
    layer = sixteen_bit_activation(operation, function, tensor, copies.unique(base))
    return None if layer is None else part(layer)(tensor)


def _averages_whole_images(call: Call) -> bool:
    """Whether a call is an average pooling with one window, of the size of its input."""
    if call.kind != "AveragePooling2D" or call.operation.data_format != "channels_last":
        return False
    size = tuple(call.inputs[0].shape[1:3])
    return tuple(call.operation.pool_size) == size and call.outputs[0].shape[1:3] == (1, 1)


def with_integer_categories(model: keras.Model) -> keras.Model:
    """Returns a model whose one-hot categories are found by comparing integers.

    Args:
        model: A built Keras 3 model.

    Returns:
        A model of the same function and weights; the model itself where it has no such layer.
    """
    flow = walk(model)
    if not any(finds_categories(call) for call in flow.calls):
        return model
    copies = LayerCopies()

    def apply(call: Call, tensors: list[Any]) -> list[Any]:
        if finds_categories(call):
            return [_one_hot(call, tensors, copies)]
        return copies.call(call, tensors)

    changed = rebuild(model, apply, class_of=None, flow=flow)
    copies.carry_weights()
    return changed


def _one_hot(call: Call, tensors: list[Any], copies: LayerCopies) -> Any:
    layer = copies.of(call.operation)
    return OneHotCategories(layer, name=copies.unique(f"integer_{layer.name}"))(tensors[0])


_PAIRWISE = {"Add": "Add", "Multiply": "Multiply", "Average": "Add"}


def _merge_pairwise(call: Call, tensors: list[Any], copies: LayerCopies, bits: int) -> Any:
    """A sum, product or mean of several tensors, two at a time: each result has its own range.

    With 16 bits concatenations too. None for other calls.
    """
    concatenates = bits > 8 and call.kind == "Concatenate"
    enough = 1 if concatenates or call.kind == "Average" else 2
    if not (concatenates or call.kind in _PAIRWISE) or len(tensors) <= enough:
        return None
    merge = getattr(keras.layers, _PAIRWISE.get(call.kind, call.kind))
    settings = {"axis": call.operation.axis} if concatenates else {}
    name = call.name.split("/")[-1]
    result = tensors[0]
    for other in tensors[1:]:
        result = merge(name=copies.unique(name), **settings)([result, other])
    if call.kind == "Average":
        scale = 1.0 / len(tensors)
        result = keras.layers.Rescaling(scale, name=copies.unique(f"{name}_share"))(result)
    return result


def _concatenated(call: Call, tensors: list[Any], copies: LayerCopies, bits: int) -> Any:
    """A stack as a concatenation along a new axis; with 16 bits two tensors at a time."""
    rank = len(call.outputs[0].shape)
    axis, name = call.operation.axis % rank, call.name.split("/")[-1]
    parts = [keras.ops.expand_dims(tensor, axis) for tensor in tensors]
    step = len(parts) if bits <= 8 else 2
    while len(parts) > 1:
        layer = keras.layers.Concatenate(axis=axis, name=copies.unique(name))
        parts = [layer(parts[:step]), *parts[step:]]
    return parts[0]


def _scale_and_offset(call: Call) -> tuple[float, float] | None:
    """Scale and offset of an operation on one tensor and a number, or on it and itself.

    None for other calls.
    """
    shape = call.inputs[0].shape
    if len(shape) < 2 or (len(shape) > 4 and None in shape[1:]):
        return None
    if call.kind == "Add" and len(call.inputs) == 2 and call.inputs[0] == call.inputs[1]:
        return 2.0, 0.0  # the converter fails on a sum of one tensor with itself
    if len(call.inputs) != 1:
        return None
    if shape[-1] is None or "float" not in call.inputs[0].dtype:
        return None
    if call.kind == "Negative":
        return -1.0, 0.0
    arguments = call.node.arguments.args
    is_number = [_is_number(argument) for argument in arguments]
    if call.kind not in _AFFINE or len(is_number) != 2 or not any(is_number):
        return None
    return _AFFINE[call.kind](float(arguments[is_number.index(True)]), is_number[0])


def _rescaled(call: Call, x: Any, copies: LayerCopies, scale: float, offset: float) -> Any:
    """A tensor times a number plus a number; of more than 4 dimensions as rows of features."""
    rescaling = keras.layers.Rescaling(scale, offset, name=copies.unique(call.operation.name))
    if len(x.shape) <= 4:
        return rescaling(x)
    rows = keras.layers.Reshape((-1, x.shape[-1]), name=copies.unique(f"{rescaling.name}_rows"))
    back = keras.layers.Reshape(x.shape[1:], name=copies.unique(f"{rescaling.name}_shape"))
    return back(rescaling(rows(x)))


def _is_number(argument: Any) -> bool:
    """Whether an argument is one finite number, perhaps in an array without dimensions."""
    if not isinstance(argument, int | float | np.number):
        if isinstance(argument, keras.KerasTensor | keras.Variable):
            return False
        if getattr(argument, "shape", None) != ():
            return False
    return bool(np.isfinite(float(argument)))


# Operation -> function of the number, and of whether the number comes before the tensor.
_AFFINE: dict[str, Callable[[float, bool], tuple[float, float] | None]] = {
    "Add": lambda number, first: (1.0, number),
    "Subtract": lambda number, first: (-1.0, number) if first else (1.0, -number),
    "Multiply": lambda number, first: (number, 0.0),
    "TrueDivide": lambda number, first: None if first or not number else (1.0 / number, 0.0),
}
_AFFINE["Divide"] = _AFFINE["TrueDivide"]


def _split_layer(layer: Any, copies: LayerCopies, known: dict[str, Any]) -> list[Any]:
    """The layers that one layer is split into; together they compute the same."""
    if type(layer).__name__ not in _SPLIT:  # the activation of an LSTM is inside of its steps
        return [copies.of(layer, **known)]
    activation = activation_of(layer)
    if isinstance(layer, keras.layers.SeparableConv1D | keras.layers.SeparableConv2D):
        parts = _split_separable(layer, copies)
    elif isinstance(layer, keras.layers.Conv1DTranspose):
        parts = _as_image_layers(layer, copies)
    elif activation is None:
        return [copies.of(layer, **known)]
    else:
        parts = [copies.of(layer, activation="linear", **known)]
    if activation is not None:
        name = copies.unique_part(f"{layer.name}_{activation}")
        parts.append(keras.layers.Activation(layer.activation, name=name))
    return parts


def _as_image_layers(layer: Any, copies: LayerCopies) -> list[Any]:
    """A transposed 1-D convolution as a 2-D one of height 1."""
    padding = layer.output_padding
    transposed = keras.layers.Conv2DTranspose(
        layer.filters,
        (1, *layer.kernel_size),
        strides=(1, *layer.strides),
        padding=layer.padding,
        output_padding=None if padding is None else (0, *keras.tree.flatten(padding)),
        dilation_rate=(1, *layer.dilation_rate),
        use_bias=layer.use_bias,
        name=copies.unique_part(f"{layer.name}_2d"),
    )
    kernel, *bias = (keras.ops.convert_to_numpy(value) for value in layer.weights)
    copies.set_later(transposed, [kernel[None], *bias])
    as_image = functools.partial(keras.ops.expand_dims, axis=1)
    return [as_image, transposed, functools.partial(keras.ops.squeeze, axis=1)]


def _split_separable(layer: Any, copies: LayerCopies) -> list[Any]:
    is_1d = isinstance(layer, keras.layers.SeparableConv1D)
    depthwise, pointwise = (
        (keras.layers.DepthwiseConv1D, keras.layers.Conv1D)
        if is_1d
        else (keras.layers.DepthwiseConv2D, keras.layers.Conv2D)
    )
    first = depthwise(
        layer.kernel_size[0] if is_1d else layer.kernel_size,
        strides=layer.strides[0] if is_1d else layer.strides,
        padding=layer.padding,
        depth_multiplier=layer.depth_multiplier,
        dilation_rate=layer.dilation_rate,
        use_bias=False,
        name=copies.unique_part(f"{layer.name}_depthwise"),
    )
    second = pointwise(
        layer.filters,
        1,
        use_bias=layer.use_bias,
        name=copies.unique_part(f"{layer.name}_pointwise"),
    )
    values = [keras.ops.convert_to_numpy(v) for v in layer.weights]
    copies.set_later(first, values[:1])
    copies.set_later(second, values[1:])
    return [first, second]
