"""A model as the quantiser wants it: flat, one operation a layer.

Nested models are laid flat; a layer's own activation becomes a layer of its own; a separable
convolution becomes its depthwise and its pointwise one, as in the file. The function and
the weights stay.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras

from tfnas.quantization.rules import activation_of
from tfnas.rewrite import Call, rebuild, settle

_SPLIT = (
    "Dense",
    *("Conv1D", "Conv2D", "DepthwiseConv1D", "DepthwiseConv2D", "Conv2DTranspose"),
    *("SeparableConv1D", "SeparableConv2D"),
)


class LayerCopies:
    """Copies of layers, one a layer however often it is used, with unique names."""

    def __init__(self) -> None:
        self._copies: dict[int, tuple[Any, Any]] = {}
        self._names: Counter[str] = Counter()
        self._later: list[tuple[Any, list[Any]]] = []

    def of(self, layer: Any, **changes: Any) -> Any:
        """Returns the copy of a layer; `changes` go into its configuration."""
        if id(layer) not in self._copies:
            self._copies[id(layer)] = layer, self._copy(layer, changes)
        return self._copies[id(layer)][1]

    def _copy(self, layer: Any, changes: dict[str, Any]) -> Any:
        try:
            config = {**layer.get_config(), **changes}
            return type(layer).from_config({**config, "name": self.unique(layer.name)})
        except (NotImplementedError, TypeError, ValueError) as error:
            if layer.weights:
                raise ValueError(
                    f"layer {layer.name!r} can't be copied: its class {type(layer).__name__} "
                    "needs a get_config() that makes it again"
                ) from error
            return layer  # nothing of it is trained: both models may hold it, as a Lambda

    def call(self, call: Call, tensors: list[Any]) -> list[Any]:
        """Makes a call anew with the copy of its layer; an operation serves as it is."""
        args, kwargs = call.arguments(tensors)
        layer = call.operation
        if isinstance(layer, keras.layers.Layer):
            layer = self.of(layer)
        return list(keras.tree.flatten(layer(*args, **kwargs)))

    def carry_weights(self) -> None:
        """Gives all copies their layers' weights, once they are built."""
        for layer, copy in self._copies.values():
            if copy is not layer:
                copy.set_weights(layer.get_weights())
                settle(copy)
        for layer, values in self._later:
            layer.set_weights(values)

    def set_later(self, layer: Any, values: list[Any]) -> None:
        """Remembers weights of a layer that is no copy of one."""
        self._later.append((layer, values))

    def unique(self, name: str) -> str:
        """Returns a name that was not given before."""
        free = name
        while free in self._names:
            self._names[name] += 1
            free = f"{name}_{self._names[name]}"
        self._names[free] += 1
        return free


Origins = dict[int, tuple[str, str]]


def normal_form(model: Any) -> tuple[Any, Origins]:
    """Returns a flat functional model with the same function; see the module.

    Args:
        model: A built functional or Sequential model.

    Returns:
        The model, and id of each layer with a kernel -> (path, class) of the layer that it
        comes from.
    """
    copies = LayerCopies()
    split: dict[int, list[Any]] = {}
    origins: Origins = {}

    def apply(call: Call, tensors: list[Any]) -> list[Any]:
        layer = call.operation
        if call.kind in _PAIRWISE and len(tensors) > 2 - (call.kind == "Average"):
            return [_by_pairs(call, tensors, copies)]
        if call.kind not in _SPLIT:
            return copies.call(call, tensors)
        if id(layer) not in split:
            split[id(layer)] = _parts(layer, copies)
            origins.update({id(part): (call.name, call.kind) for part in split[id(layer)]})
        (tensor,) = tensors
        for part in split[id(layer)]:
            tensor = part(tensor)
        return [tensor]

    plain = rebuild(model, apply)
    copies.carry_weights()
    return plain, origins


_PAIRWISE = {"Add": "Add", "Multiply": "Multiply", "Average": "Add"}


def _by_pairs(call: Call, tensors: list[Any], copies: LayerCopies) -> Any:
    """A sum, product or mean of several, two at a time: each result has a range of its own."""
    merge = getattr(keras.layers, _PAIRWISE[call.kind])
    name = call.name.split("/")[-1]
    result = tensors[0]
    for other in tensors[1:]:
        result = merge(name=copies.unique(name))([result, other])
    if call.kind == "Average":
        scale = 1.0 / len(tensors)
        result = keras.layers.Rescaling(scale, name=copies.unique(f"{name}_share"))(result)
    return result


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
