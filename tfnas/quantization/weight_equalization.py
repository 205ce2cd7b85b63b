"""Weight equalization: channels between two layers get kernels of the same size on both sides.

A ReLU lets a positive factor pass: what a convolution divides channel i by, the next one can
multiply it by. With the factor sqrt(r1 / r2), where r1 and r2 are the largest weights of channel i
in the first and the second kernel, both become sqrt(r1 r2). Channels whose numbers were small get
as many steps of an integer tensor as the others, and kernels with one scale, as of Dense layers,
lose less. The first kernel's weights count as BatchNormalization scales them, beside its bias.

A ReLU6 does not let factors pass; layers around it are left as they are.

References:
    Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
    ICCV 2019, section 4.1.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

import numpy as np

from tfnas.graph.compatibility import check_float
from tfnas.graph.functional import Call, Skipped, Walk, clone, walk
from tfnas.graph.functional_form import as_functional
from tfnas.graph.idle_layers import IDLE
from tfnas.graph.kernel_state import kernel_compression
from tfnas.quantization.channel_scaling import (
    CHANNEL_LAYERS,
    ChannelAxis,
    NotScalable,
    ScaledChannels,
    ScalingReport,
    Weights,
    channels_of,
    input_axes,
)
from tfnas.quantization.layer_roles import activation_name, activation_of, is_channel_norm

if TYPE_CHECKING:
    import keras

_PASSES, _STILL = 30, 1e-3
_LEAST, _MOST = 2.0**-10, 2.0**10  # of a factor: one channel may be of no use at all
_LETS_PASS = (None, "linear", "relu", "leaky_relu")
_KEEPS_CHANNELS = {
    *IDLE,
    *(f"{kind}Pooling{n}D" for kind in ("Max", "Average") for n in (1, 2)),
    *(f"Global{kind}Pooling{n}D" for kind in ("Max", "Average") for n in (1, 2)),
    *(f"{kind}{n}D" for kind in ("ZeroPadding", "Cropping", "UpSampling") for n in (1, 2)),
    "Flatten",
}
_LOG = logging.getLogger(__name__)


def equalize_weights(model: keras.Model) -> tuple[keras.Model, ScalingReport]:
    """Returns a copy of a network whose kernels lose less as integers; no data is needed.

    The copy computes the same. Between two layers of Conv1D, Conv2D, DepthwiseConv1D,
    DepthwiseConv2D and Dense with nothing in between but BatchNormalization, ReLU, LeakyReLU,
    pooling, padding and Flatten, factors of channels move from one kernel to the other.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((8, 8, 3))])
        >>> model.add(keras.layers.Conv2D(4, 3, activation="relu", name="first"))
        >>> model.add(keras.layers.Conv2D(4, 3, name="second"))
        >>> equal, report = tfnas.equalize_weights(model)
        >>> [(each.source, each.readers) for each in report.scaled]
        [('first', ('second',))]

    Args:
        model: A Keras 3 model; it is not changed.

    Returns:
        The copy, not compiled, and a report: `scaled`, and `skipped`, which names the
        layers whose outputs were left as they are, with reasons.

    Raises:
        ValueError: The model is quantized already, or its connections are unknown.

    References:
        Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
        ICCV 2019.
    """
    check_float(model, "equalize_weights")
    copy = clone(as_functional(model))
    flow = walk(copy)
    pairs: list[_Pair] = []
    skipped = []
    for call in flow.calls:
        if call.kind in CHANNEL_LAYERS:
            try:
                pairs.append(_pair(flow, call))
            except NotScalable as why:
                skipped.append(Skipped(call.name, call.kind, str(why)))
    weights = Weights()
    factors = [np.ones(pair.channels) for pair in pairs]
    for _ in range(_PASSES):
        moved = [pair.equalize(weights) for pair in pairs]
        factors = [a * b for a, b in zip(factors, moved, strict=True)]
        if all(np.abs(np.log(each)).max() < _STILL for each in moved):
            break
    weights.write()
    scaled = [
        ScaledChannels(pair.name, (pair.reader,), float(found.min()), float(found.max()))
        for pair, found in zip(pairs, factors, strict=True)
    ]
    for each in skipped:
        _LOG.info("%s is not equalized: %s", each.name, each.reason)
    return copy, ScalingReport(tuple(scaled), tuple(skipped))


@dataclasses.dataclass(frozen=True, eq=False)
class _Pair:
    """Two layers with a kernel, one after the other.

    Args:
        first: The call of the first one.
        norm: The call of a BatchNormalization that follows it; None where there is none.
        reader: Name of the second one.
        axes: Its kernel.
    """

    first: Call
    norm: Call | None
    reader: str
    axes: list[ChannelAxis]

    @property
    def name(self) -> str:
        """The first layer's name."""
        return self.first.name

    @property
    def channels(self) -> int:
        """Number of channels between the two."""
        return self.axes[0].channels

    def equalize(self, weights: Weights) -> np.ndarray:
        """Moves factors once, and returns them, (channels,)."""
        first = self._largest(weights)
        second = np.max([axis.largest(weights) for axis in self.axes], axis=0)
        useful = (first > 0) & (second > 0)
        ratio = np.where(useful, first, 1.0) / np.where(useful, second, 1.0)
        factors = np.clip(np.sqrt(ratio), _LEAST, _MOST)
        for array in self._outputs(weights):
            array /= factors
        for axis in self.axes:
            axis.multiply(weights, factors)
        return np.asarray(factors)

    def _kernel(self, weights: Weights) -> np.ndarray:
        """The first kernel with its output channels last; a view."""
        kernel = weights.of(self.first.operation.kernel)
        depthwise = self.first.kind.startswith("Depthwise")
        return kernel.reshape(*kernel.shape[:-2], -1) if depthwise else kernel

    def _outputs(self, weights: Weights) -> list[np.ndarray]:
        """What the outputs are proportional to, channels last."""
        if self.norm is None:
            layer = self.first.operation
            bias = [] if layer.bias is None else [weights.of(layer.bias)]
            return [self._kernel(weights), *bias]
        norm = self.norm.operation
        return [weights.of(v) for v in (norm.gamma, norm.beta) if v is not None]

    def _largest(self, weights: Weights) -> np.ndarray:
        """The largest magnitude of the first layer's weights and bias in each channel."""
        layer = self.first.operation
        kernel = self._kernel(weights)
        largest = np.abs(kernel).reshape(-1, kernel.shape[-1]).max(axis=0)
        bias = 0.0 if layer.bias is None else weights.of(layer.bias)
        if self.norm is not None:
            norm = self.norm.operation
            mean, variance = (
                np.asarray(v, np.float64) for v in (norm.moving_mean, norm.moving_variance)
            )
            scale = weights.of(norm.gamma) / np.sqrt(variance + norm.epsilon)
            bias = (bias - mean) * scale + (0.0 if norm.beta is None else weights.of(norm.beta))
            largest = largest * np.abs(scale)
        return np.asarray(np.maximum(largest, np.abs(bias)))


def _pair(flow: Walk, call: Call) -> _Pair:
    """The pair that begins with a layer.

    Raises:
        NotScalable: There is none.
    """
    _check_first(call, flow)
    norm, current = None, call
    while True:
        current = _next(flow, current)
        if len(flow.calls_of(current.operation)) > 1:
            raise NotScalable(f"{current.name} is called several times")
        if current.kind in CHANNEL_LAYERS or current.kind == "EinsumDense":
            break
        if current.kind == "BatchNormalization" and _follows(call, current):
            norm = current
            if current.operation.gamma is None or not is_channel_norm(current):
                raise NotScalable(f"{current.name} has no factors of channels")
        elif not _lets_pass(current):
            raise NotScalable(f"{current.name} ({current.kind}) does not let factors pass")
    axes = input_axes(current, current.inputs[0], channels_of(call.outputs[0]))
    if axes[0].channels != current.inputs[0].shape[-1] and not _flattens(flow, current):
        raise NotScalable(f"{current.name} has other channels")
    return _Pair(call, norm, current.name, axes)


def _check_first(call: Call, flow: Walk) -> None:
    layer = call.operation
    if len(flow.calls_of(layer)) > 1:
        raise NotScalable("it is called several times")
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise NotScalable("its channels come first")
    if activation_of(layer) not in _LETS_PASS:
        raise NotScalable(f"its activation {activation_of(layer)!r} does not let factors pass")
    if kernel_compression(np.asarray(layer.kernel)) == "clusters":
        raise NotScalable("its kernel is clustered")


def _next(flow: Walk, call: Call) -> Call:
    """The only call that reads an output."""
    (value,) = call.outputs
    readers = flow.readers[value]
    if len(readers) != 1 or value in flow.outputs or len(readers[0].inputs) != 1:
        raise NotScalable("its output is read by several layers, by a merge, or by none")
    return readers[0]


def _follows(call: Call, norm: Call) -> bool:
    return norm.inputs[0] is call.outputs[0] and activation_of(call.operation) is None


def _lets_pass(call: Call) -> bool:
    if getattr(call.operation, "data_format", "channels_last") != "channels_last":
        return False
    if call.kind in _KEEPS_CHANNELS:
        return True
    is_relu = call.kind == "ReLU" and call.operation.max_value is None
    if is_relu:
        return not call.operation.threshold
    return call.kind != "ReLU" and activation_name(call) in _LETS_PASS[1:]


def _flattens(flow: Walk, reader: Call) -> bool:
    """Whether a Flatten is right before a layer, perhaps with layers that change nothing."""
    call = flow.producers.get(reader.inputs[0])
    while call is not None and call.kind in IDLE:
        call = flow.producers.get(call.inputs[0])
    return call is not None and call.kind == "Flatten"
