"""Which normalizations of an example have an integer form."""

from __future__ import annotations

from typing import Any

from tfnas.graph.functional import Call

NORMALIZATIONS = (
    "LayerNormalization",
    "RMSNormalization",
    "GroupNormalization",
    "UnitNormalization",
)


def reason_against_form(call: Call) -> str | None:
    """Why a normalization has no integer form; None where it has one.

    Args:
        call: A call of a layer of `NORMALIZATIONS`.
    """
    layer, shape = call.operation, tuple(call.inputs[0].shape)
    axes = normalized_axes(layer, len(shape))
    if axes != tuple(range(len(shape) - len(axes), len(shape))):
        return f"{call.kind} over other axes than the last ones"
    if getattr(layer, "rms_scaling", False):
        return "LayerNormalization with rms_scaling (RMSNormalization has an integer form)"
    normalized = shape[1:] if call.kind == "GroupNormalization" else shape[-len(axes) :]
    if None in normalized:
        return f"{call.kind} over an axis of any size"
    if shape[1:].count(None) > 1:
        return f"{call.kind} of several axes of any size"
    return None


def normalized_axes(layer: Any, rank: int) -> tuple[int, ...]:
    """Returns the axes of a normalization, from 0 on, in their order.

    Args:
        layer: A layer of `NORMALIZATIONS`.
        rank: Number of dimensions of its input.
    """
    axis = layer.axis
    return tuple(sorted(one % rank for one in ((axis,) if isinstance(axis, int) else axis)))
