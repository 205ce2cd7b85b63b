"""SmoothQuant: outliers of activations move into the weights behind a normalization.

In transformers a few channels behind a LayerNormalization are tens of times as large as the
others, in all examples. An integer tensor has one range, so that the others are left with few
steps; the weights that read them are even. Both sides can be even: the normalization's factors and
offsets are divided by a factor for each channel, the rows of the kernels that read them multiplied.

References:
    Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large
    Language Models", ICML 2023.
"""

from __future__ import annotations

import dataclasses
import logging
import numbers
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.graph.batchnorm import input_batches
from tfnas.graph.compatibility import check_float
from tfnas.graph.functional import Call, Skipped, Walk, clone, walk
from tfnas.graph.functional_form import as_functional
from tfnas.graph.traversal import visit
from tfnas.quantization.channel_scaling import (
    ChannelAxis,
    NotScalable,
    ScaledChannels,
    ScalingReport,
    Weights,
    channels_of,
    input_axes,
)
from tfnas.quantization.residual_branches import (
    WITH_KERNEL,
    Branch,
    output_axes,
    residual_branches,
    set_factors,
    with_rescaling,
)

if TYPE_CHECKING:
    import keras

    from tfnas.data.data_types import ExampleData

_NORMALIZATIONS = {"LayerNormalization": ("gamma", "beta"), "RMSNormalization": ("scale",)}
_BATCH = 64
_LEAST = 1e-5  # magnitudes below this share of the largest one count as this share
_LOG = logging.getLogger(__name__)


def smooth_activations(
    model: keras.Model, data: ExampleData, strength: float = 0.5, *, residual: bool = False
) -> tuple[keras.Model, ScalingReport]:
    """Returns a copy of a transformer whose activations have fewer outliers, for integer files.

    The copy computes the same. Behind each LayerNormalization and RMSNormalization that only Dense,
    EinsumDense and attention layers read, channel j is divided by
    `max|x_j|^strength / max|w_j|^(1 - strength)`, and their kernels' rows are multiplied by it.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> inputs = keras.Input((6, 8))
        >>> x = keras.layers.LayerNormalization(name="norm")(inputs)
        >>> model = keras.Model(inputs, keras.layers.Dense(4, name="dense")(x))
        >>> data = np.random.default_rng(0).normal(size=(50, 6, 8)).astype("float32")
        >>> smooth, report = tfnas.smooth_activations(model, data)
        >>> [(each.source, each.readers) for each in report.scaled]
        [('norm', ('dense',))]
        >>> file = tfnas.to_tflite(smooth, "int8", data)

    Args:
        model: A Keras 3 model; it is not changed.
        data: Typical inputs without labels; some hundred.
        strength: How much of the outliers the weights take up, in [0, 1]. 1: all.
        residual: Whether the sums of residual branches count too, for files whose sums have 16
            bits: `QuantSpec(residual_bits=16)` or mode "int16x8". What a kernel or a normalization
            adds to a sum that a normalization reads is divided by a factor for each channel, for
            a kernel `max|y_j|^strength * max|w_j|^(1 - strength)`, and a Rescaling before the sum
            multiplies by it.

    Returns:
        The copy, not compiled, and a report: `scaled`, and `skipped`, which names the
        normalizations, and the layers at the end of residual branches, that were left as they
        are, with reasons.

    Raises:
        ValueError: `strength` or `residual` is invalid, the model is quantized already or its
            connections are unknown, or the data does not fit.

    References:
        Xiao et al., "SmoothQuant", ICML 2023, equation 4.
    """
    is_number = isinstance(strength, numbers.Real) and not isinstance(strength, bool)
    if not is_number or not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength must be in [0, 1], got {strength!r}")
    if not isinstance(residual, bool):
        raise ValueError(f"residual must be True or False, got {residual!r}")
    check_float(model, "smooth_activations")
    copy = clone(as_functional(model, data))
    flow, back, left = walk(copy), set[int](), list[Skipped]()
    if residual:
        scalable, left = _scalable(flow)
        if scalable:
            copy, flow, back = with_rescaling(copy, flow, scalable)
    places, skipped = _places(flow, back)
    skipped += left
    weights, scaled, later = Weights(), [], list[tuple[Any, np.ndarray]]()
    for visited in visit(copy, input_batches(data, _BATCH), list(places)):
        place = places[visited.layer]
        loudest = _largest_outputs(visited.layer, visited.inputs)
        factors = place.divide(weights, loudest, float(strength))
        later += [(each.operation, factors) for each in place.readers if id(each.operation) in back]
        names = tuple(each.name for each in place.readers)
        ends = float(factors.min()), float(factors.max())
        scaled.append(ScaledChannels(place.source.name, names, *ends))
    weights.write()
    for layer, factors in later:
        set_factors(layer, factors)
    for each in skipped:
        _LOG.info("%s is not smoothed: %s", each.name, each.reason)
    return copy, ScalingReport(tuple(scaled), tuple(skipped))


@dataclasses.dataclass(frozen=True)
class _Place:
    """A layer whose outputs are divided.

    Args:
        source: Its call.
        axes: Of a normalization the kernels that read it, of a kernel itself and its bias.
        readers: The calls that read it.
    """

    source: Call
    axes: list[ChannelAxis]
    readers: tuple[Call, ...]

    def divide(self, weights: Weights, loudest: np.ndarray, strength: float) -> np.ndarray:
        """Divides the outputs by factors, which it returns; those that read them multiply."""
        names = _NORMALIZATIONS.get(self.source.kind)
        if names is None:
            factors = _output_factors(loudest, self.axes[0].largest(weights), strength)
            for axis in self.axes:
                axis.multiply(weights, 1.0 / factors)
            return factors
        factors = _factors(loudest, [axis.largest(weights) for axis in self.axes], strength)
        for name in names:
            if (variable := getattr(self.source.operation, name, None)) is not None:
                weights.of(variable)[...] /= factors
        for axis in self.axes:
            axis.multiply(weights, factors)
        return factors


def _places(flow: Walk, back: set[int]) -> tuple[dict[Any, _Place], list[Skipped]]:
    """The layers to divide, by the layer that has their outputs; the others, with reasons.

    Args:
        flow: The calls of the model.
        back: Ids of the Rescalings before residual sums.
    """
    places: dict[Any, _Place] = {}
    skipped = []
    for call in flow.calls:
        if call.kind in _NORMALIZATIONS:
            try:
                places[call.operation] = _Place(call, *_readers(flow, call, back))
            except NotScalable as why:
                skipped.append(Skipped(call.name, call.kind, str(why)))
    for branch in residual_branches(flow, back):
        if branch.source.kind not in _NORMALIZATIONS:
            axes = output_axes(flow, branch.source)
            places[branch.reader.operation] = _Place(branch.source, axes, (branch.reader,))
    return places, skipped


def _scalable(flow: Walk) -> tuple[list[Branch], list[Skipped]]:
    """The residual branches whose channels can be divided, and the kernels of the other ones."""
    branches, left = residual_branches(flow), []
    sums, scalable = {id(each.reader.operation) for each in branches}, []
    for branch in branches:
        source = branch.source
        try:
            if source.kind not in _NORMALIZATIONS:
                output_axes(flow, source)
                scalable.append(branch)
            elif branch.value in source.outputs:  # no layer is between them
                _readers(flow, source, sums)
                scalable.append(branch)
        except NotScalable as reason:
            if source.kind in WITH_KERNEL:
                left.append(Skipped(source.name, source.kind, str(reason)))
    return scalable, left


def _readers(flow: Walk, call: Call, sums: set[int]) -> tuple[list[ChannelAxis], tuple[Call, ...]]:
    """The kernels that read a normalization, and the calls of their layers and of others.

    Args:
        flow: The calls of the model.
        call: The normalization.
        sums: Ids of the operations by which it goes into residual sums.
    """
    layer, (value,) = call.operation, call.outputs
    if len(flow.calls_of(layer)) > 1:
        raise NotScalable("it is called several times")
    axis = layer.axis if isinstance(layer.axis, int) else tuple(layer.axis)
    if axis not in (-1, (-1,), len(value.shape) - 1, (len(value.shape) - 1,)):
        raise NotScalable("it normalizes another axis than the last one")
    if getattr(layer, _NORMALIZATIONS[call.kind][0], None) is None:
        raise NotScalable("it has no factors")
    readers = flow.readers[value]
    if value in flow.outputs or not readers:
        raise NotScalable("it is an output of the model")
    shared = [each.name for each in readers if len(flow.calls_of(each.operation)) > 1]
    if shared:
        raise NotScalable(f"{shared[0]} is called several times")
    kernels = [each for each in readers if id(each.operation) not in sums]
    if not kernels:
        raise NotScalable("no kernel reads it")
    axes = [axis for each in kernels for axis in input_axes(each, value, channels_of(value))]
    return axes, tuple(readers)


def _largest_outputs(layer: Any, inputs: Any) -> np.ndarray:
    """The largest magnitude in each channel of a layer's outputs, (channels,)."""
    batches = [np.abs(np.asarray(layer(tensor))) for tensor in inputs]
    largest = np.max([batch.reshape(-1, batch.shape[-1]).max(axis=0) for batch in batches], axis=0)
    return largest.astype(np.float64)


def _factors(loudest: np.ndarray, kernels: list[np.ndarray], strength: float) -> np.ndarray:
    widest = np.max(kernels, axis=0)
    if not loudest.any() or not widest.any():
        return np.ones_like(loudest)
    return _with_least(loudest) ** strength / _with_least(widest) ** (1.0 - strength)


def _output_factors(loudest: np.ndarray, kernel: np.ndarray, strength: float) -> np.ndarray:
    """Factors that a kernel's outputs are divided by, which has one scale: both get even."""
    if not loudest.any() or not kernel.any():
        return np.ones_like(loudest)
    return _with_least(loudest) ** strength * _with_least(kernel) ** (1.0 - strength)


def _with_least(magnitudes: np.ndarray) -> np.ndarray:
    return np.maximum(magnitudes, _LEAST * magnitudes.max())
