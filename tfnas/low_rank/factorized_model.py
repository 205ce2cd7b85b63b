"""The factorized model: every layer made anew, some as two or three that follow each other.

What stands in front has no bias and no activation; the layer's own come last. Strides and
dilation go with the kernel along whose axis they are, and so does the padding: 'same' pads each
axis by itself, and zeros in front of a linear factor are zeros behind it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfnas.graph.functional import Call, LayerCopies, Walk, rebuild
from tfnas.low_rank.factorizable_layers import FactorizableLayer
from tfnas.low_rank.options import Option, Options, joined_kernel

_OF_THE_LAST = ("bias_initializer", "bias_regularizer", "bias_constraint", "activity_regularizer")


@dataclasses.dataclass(frozen=True, eq=False)
class Factored:
    """A layer as its factors.

    Args:
        unit: The layer.
        option: What was chosen for it.
        kernels: The factors' kernels, in order, each (height, width, inputs, outputs).
        shift: What the mean output lacks, (outputs,); None where nothing takes it up.
    """

    unit: FactorizableLayer
    option: Option
    kernels: tuple[np.ndarray, ...]
    shift: np.ndarray | None = None

    @property
    def parameters(self) -> int:
        """Number of weights."""
        bias = self.unit.kernel.shape[-1] if self.unit.layer.use_bias else 0
        return sum(kernel.size for kernel in self.kernels) + bias


def factored(options: Options, option: Option, mean: np.ndarray | None) -> Factored:
    """Returns a layer's factors, with the error that they really have.

    Args:
        options: The layer's.
        option: What was chosen.
        mean: Mean of its patches; None without data.
    """
    unit = options.unit
    kernels = options.kernels(option)
    joined = joined_kernel(kernels).reshape(unit.flat.shape)
    error = options.error(kernels)
    shift = mean @ (unit.flat - joined) if mean is not None and unit.absorbs_mean else None
    return Factored(unit, dataclasses.replace(option, error=error), kernels, shift)


def check_copies(flow: Walk) -> None:
    """Raises ValueError where a layer can't be made again from its configuration."""
    import keras

    copies = LayerCopies()
    for call in flow.calls:
        if isinstance(call.operation, keras.layers.Layer):
            copies.of(call.operation)


def build(model: Any, flow: Walk, parts: Sequence[Factored]) -> Any:
    """Returns a new functional model; nested models become flat.

    Args:
        model: The model.
        flow: Its walk.
        parts: The layers that become factors.
    """
    copies = LayerCopies()
    taken = {call.operation.name for call in flow.calls}
    by_layer = {id(part.unit.layer): part for part in parts}
    chains: dict[int, list[Any]] = {}
    moved = {
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
            return [_through(chains[key], tensor)]
        chains[key] = _layers(part, copies, taken)
        result = _through(chains[key], tensor)  # builds them
        for layer, values in zip(chains[key], _weights(part), strict=True):
            kernel, *bias = values
            copies.set_later(layer, [kernel.reshape(tuple(layer.kernel.shape)), *bias])
        return [result]

    def values(layer: Any) -> list[np.ndarray]:
        shift = moved.get(id(layer))
        return [
            np.asarray(v) - shift if shift is not None and v is layer.moving_mean else np.asarray(v)
            for v in layer.weights
        ]

    smaller = rebuild(model, apply, flow=flow)
    copies.carry_weights(values)
    return smaller


def _through(layers: Sequence[Any], tensor: Any) -> Any:
    for layer in layers:
        tensor = layer(tensor)
    return tensor


def _weights(part: Factored) -> list[list[np.ndarray]]:
    found = [[kernel] for kernel in part.kernels]
    if part.unit.layer.use_bias:
        bias = np.asarray(part.unit.layer.bias, np.float64)
        found[-1].append(bias if part.shift is None else bias + part.shift)
    return found


def _layers(part: Factored, copies: LayerCopies, taken: set[str]) -> list[Any]:
    layer = part.unit.layer
    config = layer.get_config()
    config.pop("kernel_initializer")  # one may fit one shape alone, and the weights are known
    inner = {k: v for k, v in config.items() if k not in _OF_THE_LAST}
    inner |= {"activation": None, "use_bias": False}
    made = []
    for place in range(len(part.kernels)):
        own = config if place == len(part.kernels) - 1 else inner
        name = f"{layer.name}_{_role(part, place)}"
        while name in taken:  # another layer's, which keeps it
            name = f"{name}_factor"
        changes = {**_geometry(part, place), "name": copies.unique(name)}
        made.append(type(layer).from_config({**own, **changes}))
    return made


def _role(part: Factored, place: int) -> str:
    if part.option.method == "tucker" and part.kernels[place].shape[:2] != (1, 1):
        return "core"
    return "first" if place == 0 else "last"


def _geometry(part: Factored, place: int) -> dict[str, Any]:
    """What of a factor's configuration is its own; see the module."""
    layer, size = part.unit.layer, part.kernels[place].shape[:2]
    channels = part.kernels[place].shape[-1]
    if not hasattr(layer, "kernel_size"):
        return {"units": channels}
    method = part.option.method
    along = {
        "svd": (place == 0, place == 0),  # the sooner there are fewer positions, the better
        "spatial": (place == 0, place == 1),
        "tucker": (size != (1, 1), size != (1, 1)),
    }[method]
    axes = range(len(layer.kernel_size))
    return {
        "filters": channels,
        "kernel_size": tuple(size[axis] for axis in axes),
        "strides": tuple(layer.strides[axis] if along[axis] else 1 for axis in axes),
        "dilation_rate": tuple(layer.dilation_rate[axis] if along[axis] else 1 for axis in axes),
    }
