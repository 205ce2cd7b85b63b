"""Finds the layers that can be factorized, and the MACs of their uses."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from tfnas.graph.functional import Call, Skipped, Walk
from tfnas.graph.macs import call_macs
from tfnas.graph.registered_layers import is_of_keras

METHODS = ("svd", "spatial", "tucker")
_KINDS = ("Dense", "Conv1D", "Conv2D")


@dataclasses.dataclass(frozen=True, eq=False)
class FactorizableLayer:
    """A layer that can be factorized, with all of its uses.

    Args:
        name: Path of its first use.
        layer: The layer.
        kernel: Its kernel as (height, width, inputs, outputs), float64.
        methods: The factorization methods that apply to it.
        positions: Numbers of positions per example, summed over all uses: of the input; after a
            convolution with the layer's height and vertical stride alone; of the output. They
            are where a first 1 x 1, a k x 1 and the last factor are applied.
        norm: The BatchNormalization that is the only consumer of its output; None without.
    """

    name: str
    layer: Any
    kernel: np.ndarray = dataclasses.field(repr=False)
    methods: tuple[str, ...]
    positions: tuple[int, int, int]
    norm: Any = None

    @property
    def macs(self) -> int:
        """Returns the multiply-accumulates per example, summed over all uses."""
        return self.positions[2] * self.kernel.size

    @property
    def flat(self) -> np.ndarray:
        """Returns the kernel as a matrix (inputs of a patch, outputs)."""
        return self.kernel.reshape(-1, self.kernel.shape[-1])

    @property
    def absorbs_mean(self) -> bool:
        """Returns whether a bias or BatchNormalization can compensate a shift of the mean."""
        return bool(self.layer.use_bias) or self.norm is not None


def find_layers(
    flow: Walk, methods: tuple[str, ...]
) -> tuple[list[FactorizableLayer], list[Skipped]]:
    """Returns the layers that can be factorized, and the others that multiply, with the reason.

    Args:
        flow: The model's walk.
        methods: Some of `METHODS`.
    """
    uses: dict[int, list[Call]] = {}
    for call in flow.calls:
        uses.setdefault(id(call.operation), []).append(call)
    found: list[FactorizableLayer] = []
    skipped: list[Skipped] = []
    for calls in uses.values():
        first = calls[0]
        layer = first.operation
        if call_macs(first) == 0 or not getattr(layer, "weights", ()):
            continue
        reason = _obstacle(layer)
        if reason is None:
            kernel = _kernel(layer)
            single = kernel.shape[:2] == (1, 1)
            usable = tuple(m for m in methods if (m == "svd") == single)
            if usable:
                norm = _norm_behind(flow, calls)
                found.append(
                    FactorizableLayer(first.name, layer, kernel, usable, _positions(calls), norm)
                )
                continue
            size = "x".join(str(n) for n in kernel.shape[:2])
            reason = f"{' and '.join(methods)} can't take a kernel of {size}"
        skipped.append(Skipped(first.name, first.kind, reason))
    return found, skipped


def _obstacle(layer: Any) -> str | None:
    """Why a layer can't be factorized; None where it can."""
    kind = type(layer).__name__
    if "Depthwise" in kind or "Separable" in kind:
        return "a depthwise kernel is one small map per channel: there is nothing to save"
    if kind not in _KINDS or not is_of_keras(type(layer)):
        return f"layers of type {kind} can't be factorized"
    if getattr(layer, "groups", 1) != 1:
        return f"convolutions with {layer.groups} groups can't be factorized"
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return f"its data format is {layer.data_format}"
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        return "its kernel is quantized or has LoRA weights"
    if len(layer.weights) != 1 + bool(layer.use_bias):
        return "it has other weights than kernel and bias"
    if layer.kernel.constraint is not None:
        return "its kernel is under a constraint, which factors can't fulfill"
    if layer.use_bias and layer.bias.constraint is not None:
        return "its bias is under a constraint"
    if not np.isfinite(np.asarray(layer.kernel, np.float64)).all():
        return "its kernel holds NaN or inf"
    return None


def _kernel(layer: Any) -> np.ndarray:
    kernel = np.asarray(layer.kernel, np.float64)
    *size, inputs, outputs = kernel.shape
    return kernel.reshape(*(*size, 1, 1)[:2], inputs, outputs)


def _positions(calls: list[Call]) -> tuple[int, int, int]:
    """See :class:`FactorizableLayer`. An unknown size counts as one output position."""
    totals = [0, 0, 0]
    for call in calls:
        before, after = call.inputs[0].shape[1:-1], call.outputs[0].shape[1:-1]
        strides = getattr(call.operation, "strides", (1,) * len(before))
        old = [n or s for n, s in zip(before, strides, strict=True)]
        new = [n or 1 for n in after]
        for index, sizes in enumerate((old, [*new[:1], *old[1:]], new)):
            totals[index] += math.prod(sizes)
    return totals[0], totals[1], totals[2]


def _norm_behind(flow: Walk, calls: list[Call]) -> Any:
    """The BatchNormalization over channels that is the only consumer of a single use."""
    if len(calls) != 1 or any(calls[0].outputs[0] is value for value in flow.outputs):
        return None
    layer, output = calls[0].operation, calls[0].outputs[0]
    consumers = flow.readers[output]
    if len(consumers) != 1 or consumers[0].kind != "BatchNormalization":
        return None
    norm = consumers[0].operation
    once = len(flow.calls_of(norm)) == 1
    linear = layer.activation is None or layer.activation.__name__ == "linear"
    over_channels = norm.axis in (-1, len(output.shape) - 1)
    return norm if once and linear and over_channels else None
