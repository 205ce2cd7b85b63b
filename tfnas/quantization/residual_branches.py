"""Factors of channels between residual branches and the sums that they go into.

Outputs of a kernel or a normalization that a sum adds to the stream of a transformer are divided by
a factor for each channel, and multiplied by it again before the sum, by a Rescaling that is put
there. With 16 bits (:mod:`tfnas.quantization.residual_sums`) that multiplication loses next to
nothing, while the 8 bits before it fit each channel.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np

from tfnas.graph.functional import Call, LayerCopies, Value, Walk, rebuild, walk
from tfnas.graph.idle_layers import IDLE
from tfnas.keras_private import attention_projections
from tfnas.quantization.channel_scaling import (
    ATTENTION,
    ChannelAxis,
    NotScalable,
    channels_of,
    unclustered,
)
from tfnas.quantization.einsum_axes import dense_axes
from tfnas.quantization.layer_roles import activation_of
from tfnas.quantization.normalization_rules import NORMALIZATIONS

WITH_KERNEL = ("Dense", "EinsumDense", *ATTENTION)


@dataclasses.dataclass(frozen=True)
class Branch:
    """What a residual sum adds.

    Args:
        source: The call of the kernel or normalization that makes it.
        reader: The sum, or the Rescaling before it.
        value: The input of the reader.
    """

    source: Call
    reader: Call
    value: Value


def residual_branches(flow: Walk, readers: set[int] | None = None) -> list[Branch]:
    """Returns what goes into the sums that a normalization reads.

    Args:
        flow: The calls of a model.
        readers: Ids of the operations that stand before the sums; None: the sums themselves.
    """
    producers = flow.producers
    found = []
    for call in flow.calls:
        known = _is_residual(flow, call) if readers is None else id(call.operation) in readers
        for value in call.inputs if known else ():
            source = producers.get(value)
            while source is not None and source.kind in IDLE and _users(flow, source) == 1:
                source = producers.get(source.inputs[0])
            if source is not None:
                found.append(Branch(source, call, value))
    return found


def _is_residual(flow: Walk, call: Call) -> bool:
    if call.kind != "Add" or not 2 <= len(call.inputs) == len(set(call.inputs)):
        return False
    shapes = [value.shape for value in (*call.inputs, *call.outputs)]
    even = len({len(shape) for shape in shapes}) == 1 and len({shape[-1] for shape in shapes}) == 1
    floats = all("float" in value.dtype for value in call.inputs)
    return even and floats and len(shapes[0]) <= 4 and _is_normalized(flow, call)


def _is_normalized(flow: Walk, call: Call) -> bool:
    """Whether a normalization reads a call's output, perhaps behind a Dropout."""
    (output,) = call.outputs
    if output in flow.outputs:  # which have the bits of activations
        return False
    return any(
        each.kind in NORMALIZATIONS or (each.kind in IDLE and _is_normalized(flow, each))
        for each in flow.readers[output]
    )


def _users(flow: Walk, call: Call) -> int:
    return sum(flow.uses[value] for value in call.outputs)


def output_axes(flow: Walk, call: Call) -> list[ChannelAxis]:
    """Returns the kernel and the bias of a call by the axis of its output's channels.

    Args:
        flow: The calls of the model.
        call: The call.

    Raises:
        NotScalable: Its output is not that of a kernel, or others read it too.
    """
    layer = call.operation
    if call.kind in ATTENTION:
        layer = attention_projections(layer)["output"]
    elif call.kind not in WITH_KERNEL or activation_of(layer) is not None:
        raise NotScalable(f"{call.name} ({call.kind}) has no kernel at its end")
    if len(call.outputs) != 1 or _users(flow, call) != 1:
        raise NotScalable(f"several layers read {call.name}")
    if len(flow.calls_of(call.operation)) > 1:
        raise NotScalable(f"{call.name} is called several times")
    if not _ends_with_kernel_channels(layer):
        raise NotScalable(f"{call.name} has other channels than its kernel")
    channels = channels_of(call.outputs[0])
    found = [unclustered(ChannelAxis(layer.kernel, -1, channels), call.name)]
    return found if layer.bias is None else [*found, ChannelAxis(layer.bias, -1, channels)]


def _ends_with_kernel_channels(layer: Any) -> bool:
    if type(layer).__name__ == "Dense":
        return True
    axes = None if layer is None else dense_axes(layer)
    return axes is not None and axes.second[-1] == axes.output[-1] not in axes.first


def with_rescaling(
    model: keras.Model, flow: Walk, branches: list[Branch]
) -> tuple[keras.Model, Walk, set[int]]:
    """Returns a model with a Rescaling by 1 before sums, its calls, and the ids of these layers.

    Args:
        model: A functional model.
        flow: Its calls.
        branches: Where they go.
    """
    copies, added = LayerCopies(), []
    places = {(id(each.reader), each.value): each.source.name for each in branches}

    def apply(call: Call, tensors: list[Any]) -> list[Any]:
        scaled = []
        for value, tensor in zip(call.inputs, tensors, strict=True):
            name = places.get((id(call), value))
            if name is not None:
                ones = [1.0] * channels_of(value)
                name = copies.unique(f"{name.replace('/', '_')}_back")
                layer = keras.layers.Rescaling(ones, name=name)
                added.append(layer)
                tensor = layer(tensor)
            scaled.append(tensor)
        return copies.call(call, scaled)

    changed = rebuild(model, apply, class_of=model, flow=flow)
    copies.carry_weights()
    return changed, walk(changed), {id(layer) for layer in added}


def set_factors(layer: Any, factors: np.ndarray) -> None:
    """Sets what a Rescaling multiplies each channel by.

    Args:
        layer: The Rescaling.
        factors: The factors, (channels,).
    """
    layer.scale = [float(each) for each in factors]
