"""Builds the factorized model: copies of layers, with factors in place of some.

Bias and activation of a layer go to its last factor; the others are linear. Strides and dilation
of an axis go to the factor whose kernel extends along this axis. So does the padding: "same"
pads each axis separately, and a linear factor without bias maps zeros to zeros.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfnas.graph.functional import Call, LayerCopies, Walk, rebuild
from tfnas.low_rank.factorizable_layers import FactorizableLayer
from tfnas.low_rank.options import Option, Options, joined_kernel

_LAST_FACTOR_ONLY = (
    "bias_initializer",
    "bias_regularizer",
    "bias_constraint",
    "activity_regularizer",
)


@dataclasses.dataclass(frozen=True, eq=False)
class LayerFactors:
    """The factors that replace a layer.

    Args:
        unit: The layer.
        option: The chosen method and ranks.
        kernels: The factors' kernels, in order, each (height, width, inputs, outputs).
        shift: The loss in the mean output, (outputs,), to be added to the bias or normalization;
            None without one or without data.
    """

    unit: FactorizableLayer
    option: Option
    kernels: tuple[np.ndarray, ...]
    shift: np.ndarray | None = None

    @property
    def parameters(self) -> int:
        """Returns the number of weights."""
        bias = self.unit.kernel.shape[-1] if self.unit.layer.use_bias else 0
        return sum(kernel.size for kernel in self.kernels) + bias


def layer_factors(options: Options, option: Option, mean: np.ndarray | None) -> LayerFactors:
    """Computes a layer's factors and their exact error.

    Args:
        options: The layer's options.
        option: The chosen one.
        mean: Mean of its patches, (inputs,); None without data.

    Returns:
        The kernels of the factors, with their error and what they lose in the mean output.
    """
    unit = options.unit
    kernels = options.kernels(option)
    joined = joined_kernel(kernels).reshape(unit.flat.shape)
    error = options.error(kernels)
    shift = mean @ (unit.flat - joined) if mean is not None and unit.absorbs_mean else None
    return LayerFactors(unit, dataclasses.replace(option, error=error), kernels, shift)


def check_copies(flow: Walk) -> None:
    """Checks that each layer can be created again from its configuration.

    Args:
        flow: The calls of a model.

    Raises:
        ValueError: A layer can not be created again.
    """
    import keras

    copies = LayerCopies()
    for call in flow.calls:
        if isinstance(call.operation, keras.layers.Layer):
            copies.of(call.operation)


def build(model: Any, flow: Walk, parts: Sequence[LayerFactors]) -> Any:
    """Returns a new functional model with factors in place of layers; nested models become flat.

    Args:
        model: The model.
        flow: Its walk.
        parts: The factors of the layers to replace.
    """
    copies = LayerCopies()
    used_names = {call.operation.name for call in flow.calls}
    makers = [flow.producers.get(value) for value in flow.outputs]
    several = [id(call.operation) for call in makers if call is not None and len(makers) > 1]
    by_layer = {id(part.unit.layer): part for part in parts}
    chains: dict[int, list[Any]] = {}
    mean_shifts = {
        id(part.unit.norm): part.shift
        for part in parts
        if part.shift is not None and not part.unit.layer.use_bias
    }

    def apply(call: Call, tensors: list[Any]) -> list[Any]:
        part = by_layer.get(id(call.operation))
        if part is None:
            return copies.call(call, tensors)
        (tensor,) = tensors
        key = id(call.operation)
        if key in chains:
            return [_apply_layers(chains[key], tensor)]
        chains[key] = _layers(part, copies, used_names, key in several)
        result = _apply_layers(chains[key], tensor)  # builds them
        for layer, weights in zip(chains[key], _weights(part), strict=True):
            kernel, *bias = weights
            copies.set_later(layer, [kernel.reshape(tuple(layer.kernel.shape)), *bias])
        return [result]

    def values(layer: Any) -> list[np.ndarray]:
        shift = mean_shifts.get(id(layer))
        return [
            np.asarray(v) - shift if shift is not None and v is layer.moving_mean else np.asarray(v)
            for v in layer.weights
        ]

    smaller = rebuild(model, apply, class_of=model, flow=flow)
    copies.carry_weights(values)
    return smaller


def _apply_layers(layers: Sequence[Any], tensor: Any) -> Any:
    for layer in layers:
        tensor = layer(tensor)
    return tensor


def _weights(part: LayerFactors) -> list[list[np.ndarray]]:
    weights = [[kernel] for kernel in part.kernels]
    if part.unit.layer.use_bias:
        bias = np.asarray(part.unit.layer.bias, np.float64)
        weights[-1].append(bias if part.shift is None else bias + part.shift)
    return weights


def _layers(
    part: LayerFactors, copies: LayerCopies, used_names: set[str], is_output: bool
) -> list[Any]:
    """The factors of a layer.

    The last one of an output has the layer's name, by which Keras tells several outputs apart.
    """
    layer = part.unit.layer
    config = layer.get_config()
    config.pop("kernel_initializer")  # it may fit only the old shape, and the weights are known
    inner = {k: v for k, v in config.items() if k not in _LAST_FACTOR_ONLY}
    inner |= {"activation": None, "use_bias": False}
    factors = []
    for index in range(len(part.kernels)):
        last = index == len(part.kernels) - 1
        name = layer.name if last and is_output else f"{layer.name}_{_role(part, index)}"
        while name in used_names - {layer.name}:  # another layer has this name
            name = f"{name}_factor"
        changes = {**_geometry(part, index), "name": copies.unique(name)}
        factors.append(type(layer).from_config({**(config if last else inner), **changes}))
    return factors


def _role(part: LayerFactors, index: int) -> str:
    if part.option.method == "tucker" and part.kernels[index].shape[:2] != (1, 1):
        return "core"
    return "first" if index == 0 else "last"


def _geometry(part: LayerFactors, index: int) -> dict[str, Any]:
    """Channels, kernel size, strides and dilation of a factor; see the module."""
    layer, size = part.unit.layer, part.kernels[index].shape[:2]
    channels = part.kernels[index].shape[-1]
    if not hasattr(layer, "kernel_size"):
        return {"units": channels}
    method = part.option.method
    extends = {
        "svd": (index == 0, index == 0),  # strides come first: fewer positions for the second
        "spatial": (index == 0, index == 1),
        "tucker": (size != (1, 1), size != (1, 1)),
    }[method]
    axes = range(len(layer.kernel_size))
    return {
        "filters": channels,
        "kernel_size": tuple(size[axis] for axis in axes),
        "strides": tuple(layer.strides[axis] if extends[axis] else 1 for axis in axes),
        "dilation_rate": tuple(layer.dilation_rate[axis] if extends[axis] else 1 for axis in axes),
    }
