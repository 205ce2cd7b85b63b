"""A model as the quantizer wants it: flat, one operation a layer.

Nested models are laid flat, and so are layers that are registered as "open"; a layer's own
activation becomes a layer of its own; a separable convolution becomes its depthwise and its
pointwise one, as in the file; a sum, difference, product or quotient of a tensor and a number
becomes a Rescaling. The function and the weights stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfnas.graph.functional import Call, LayerCopies, rebuild, walk
from tfnas.quantization.integer_layers import HARD_SILU, hard_silu
from tfnas.quantization.layer_roles import activation_name, activation_of
from tfnas.quantization.unfolding import body_of

_SPLIT = (
    "Dense",
    *("Conv1D", "Conv2D", "DepthwiseConv1D", "DepthwiseConv2D", "Conv2DTranspose"),
    *("SeparableConv1D", "SeparableConv2D"),
)
Origins = dict[int, tuple[str, str]]


def normal_form(model: Any, bits: int = 8) -> tuple[Any, Origins]:
    """Returns a flat functional model with the same function; see the module.

    Args:
        model: A built functional or Sequential model.
        bits: Of the activations; with 16, what has no kernel is made of what has one.

    Returns:
        The model, and id of each layer with a kernel -> (path, class) of the layer that it
        comes from.
    """
    copies = LayerCopies()
    split: dict[int, list[Any]] = {}
    origins: Origins = {}

    def apply(call: Call, tensors: list[Any]) -> list[Any]:
        layer = call.operation
        several = _by_pairs(call, tensors, copies, bits)
        if several is not None:
            return [several]
        terms = _terms_of(call)
        if terms is not None:
            return [
                keras.layers.Rescaling(*terms, name=copies.unique(call.operation.name))(*tensors)
            ]
        if bits > 8 and {call.kind, activation_name(call)} & HARD_SILU:
            return [hard_silu(tensors[0], copies.unique)]
        if call.kind not in _SPLIT:
            return copies.call(call, tensors)
        if id(layer) not in split:
            split[id(layer)] = _parts(layer, copies)
            origins.update({id(part): (call.name, call.kind) for part in split[id(layer)]})
        (tensor,) = tensors
        for part in split[id(layer)]:
            swish = bits > 8 and activation_of(part) in HARD_SILU
            tensor = hard_silu(tensor, copies.unique) if swish else part(tensor)
        return [tensor]

    plain = rebuild(model, apply, flow=walk(model, body_of))
    copies.carry_weights()
    return plain, origins


_PAIRWISE = {"Add": "Add", "Multiply": "Multiply", "Average": "Add"}


def _by_pairs(call: Call, tensors: list[Any], copies: LayerCopies, bits: int) -> Any:
    """A sum, product or mean of several, two at a time: each result has a range of its own.

    None where a call is something else. With 16 bits also a concatenation.
    """
    joins = bits > 8 and call.kind == "Concatenate"
    few = 1 if joins or call.kind == "Average" else 2
    if not (joins or call.kind in _PAIRWISE) or len(tensors) <= few:
        return None
    merge = getattr(keras.layers, _PAIRWISE.get(call.kind, call.kind))
    settings = {"axis": call.operation.axis} if joins else {}
    name = call.name.split("/")[-1]
    result = tensors[0]
    for other in tensors[1:]:
        result = merge(name=copies.unique(name), **settings)([result, other])
    if call.kind == "Average":
        scale = 1.0 / len(tensors)
        result = keras.layers.Rescaling(scale, name=copies.unique(f"{name}_share"))(result)
    return result


def _terms_of(call: Call) -> tuple[float, float] | None:
    """Factor and offset of an operation on one tensor and a number; None of anything else."""
    if len(call.inputs) != 1 or not 2 <= len(call.inputs[0].shape) <= 4:
        return None
    if call.inputs[0].shape[-1] is None or "float" not in call.inputs[0].dtype:
        return None
    if call.kind == "Negative":
        return -1.0, 0.0
    arguments = call.node.arguments.args
    plain = [isinstance(a, int | float | np.number) and np.isfinite(a) for a in arguments]
    if call.kind not in _TERMS or len(plain) != 2 or not any(plain):
        return None
    return _TERMS[call.kind](float(arguments[plain.index(True)]), plain[0])


# Of the number, and whether it comes before the tensor.
_TERMS: dict[str, Callable[[float, bool], tuple[float, float] | None]] = {
    "Add": lambda number, first: (1.0, number),
    "Subtract": lambda number, first: (-1.0, number) if first else (1.0, -number),
    "Multiply": lambda number, first: (number, 0.0),
    "TrueDivide": lambda number, first: None if first or not number else (1.0 / number, 0.0),
}
_TERMS["Divide"] = _TERMS["TrueDivide"]


def _parts(layer: Any, copies: LayerCopies) -> list[Any]:
    """The layers that do what one layer does."""
    activation = activation_of(layer)
    if isinstance(layer, keras.layers.SeparableConv1D | keras.layers.SeparableConv2D):
        parts = _separable_parts(layer, copies)
    elif activation is None:
        return [copies.of(layer)]
    else:
        parts = [copies.of(layer, activation="linear")]
    if activation is not None:
        name = copies.unique(f"{layer.name}_{activation}")
        parts.append(keras.layers.Activation(layer.activation, name=name))
    return parts


def _separable_parts(layer: Any, copies: LayerCopies) -> list[Any]:
    one = isinstance(layer, keras.layers.SeparableConv1D)
    depthwise, pointwise = (
        (keras.layers.DepthwiseConv1D, keras.layers.Conv1D)
        if one
        else (keras.layers.DepthwiseConv2D, keras.layers.Conv2D)
    )
    first = depthwise(
        layer.kernel_size[0] if one else layer.kernel_size,
        strides=layer.strides[0] if one else layer.strides,
        padding=layer.padding,
        depth_multiplier=layer.depth_multiplier,
        dilation_rate=layer.dilation_rate,
        use_bias=False,
        name=copies.unique(f"{layer.name}_depthwise"),
    )
    second = pointwise(
        layer.filters, 1, use_bias=layer.use_bias, name=copies.unique(f"{layer.name}_pointwise")
    )
    values = [keras.ops.convert_to_numpy(v) for v in layer.weights]
    copies.set_later(first, values[:1])
    copies.set_later(second, values[1:])
    return [first, second]
