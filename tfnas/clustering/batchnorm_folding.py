"""BatchNormalization folded into the kernels that it multiplies, before they are clustered.

A `.tflite` file has no BatchNormalization: in inference it is a factor and an offset a
channel, and the converter multiplies the factor into the kernel before it. Of k values then
become k for each channel. So what the converter would do to the values is done before they
are chosen, in the Keras model, exactly: its kernels are then the file's.

TensorFlow's converter was seen (2.21) to multiply into the convolution or Dense layer before
it; and, where there is none, into a Dense layer right behind it, there a factor a *row*, which
no choice of values a channel would survive. A convolution behind it is left alone.

References:
    Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018, section 3.2.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection
from typing import Any

import keras
import numpy as np

from tfnas.graph.compatibility import channels_share_values, check_float, kernel_compression
from tfnas.graph.functional import Call, LayerCopies, Value, Walk, rebuild, walk

_KERNELS = (
    *("Dense", "Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D"),
    *("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
    *("SeparableConv1D", "SeparableConv2D"),
)
_IDLE = ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "Identity")  # in inference


@dataclasses.dataclass(frozen=True, eq=False)
class Normalized:
    """A BatchNormalization beside a kernel.

    Args:
        norm: Its call.
        kernel: The call of the layer that the converter multiplies it into.
        behind: Whether that layer is behind it, and not before.
        hindrance: Why it can't be folded, None where it can.
    """

    norm: Call
    kernel: Call
    behind: bool
    hindrance: str | None


def fold_batchnorm(model: Any, layers: Collection[str] | None = None) -> tuple[Any, list[str]]:
    """Returns a copy with BatchNormalization folded into kernels, and those layers' paths.

    The copy computes the same; it is flat, and the folded layers have a bias and no penalty
    (regularizer) on their kernels. Training it further goes on without those normalizations.

    Example:
        >>> import keras
        >>> from keras.layers import BatchNormalization, Conv2D
        >>> model = keras.Sequential(
        ...     [keras.Input((8, 8, 3)), Conv2D(4, 3, name="stem"), BatchNormalization()]
        ... )
        >>> folded, names = fold_batchnorm(model)
        >>> [type(layer).__name__ for layer in folded.layers], names
        (['InputLayer', 'Conv2D'], ['stem'])

    Args:
        model: A built functional or Sequential model.
        layers: Paths of the layers to fold into; None: all that can be.

    Raises:
        ValueError: The model is not built from layers with known connections, or a kernel that is
            folded into is clustered, which would be lost.
    """
    check_float(model, "fold_batchnorm")
    flow = walk(model)
    pairs = normalized_kernels(flow)
    gone = foldable(pairs, layers)
    for pair in pairs:
        if id(pair.norm) in gone:
            _check_shared(pair)
    folded, _, names = folded_copy(model, pairs, layers, flow)
    return folded, names


def _check_shared(pair: Normalized) -> None:
    """A factor a channel leaves values alone where each channel has its own, and no others."""
    for variable in pair.kernel.operation.trainable_variables:
        kernel = np.asarray(variable)
        whole = pair.behind or channels_share_values(kernel)
        if kernel.ndim > 1 and whole and kernel_compression(kernel) == "clusters":
            raise ValueError(
                f"model must not be clustered before fold_batchnorm, got shared values in "
                f"{pair.kernel.name!r}, which would be lost: fold first, or tfnas.cluster does it"
            )


def normalized_kernels(flow: Walk) -> list[Normalized]:
    """Returns each BatchNormalization that the converter would multiply into a kernel."""
    uses = Counter(value for call in flow.calls for value in call.inputs)
    uses.update(flow.outputs)
    makers = {value: call for call in flow.calls for value in call.outputs}
    calls = Counter(id(call.operation) for call in flow.calls)
    found = []
    for norm in (call for call in flow.calls if call.kind == "BatchNormalization"):
        before, alone = _before(norm.inputs[0], makers, uses)
        if before is not None:
            reason = _hindrance(norm, before, calls, alone)
            found.append(Normalized(norm, before, False, reason))
            continue
        behind = _behind(norm.outputs[0], flow, uses)
        found += [Normalized(norm, b, True, _hindrance(norm, b, calls, True)) for b in behind]
    return found


def folded_copy(
    model: Any, pairs: list[Normalized], layers: Collection[str] | None, flow: Walk
) -> tuple[Any, dict[int, Any], list[str]]:
    """Returns the copy, each layer's copy by the layer's id, and what was folded into.

    Args:
        model: A functional or Sequential model.
        pairs: What :func:`normalized_kernels` found in it.
        layers: Paths of the layers to fold into; None: all that can be.
        flow: The model's walk.
    """
    gone = foldable(pairs, layers)
    chosen: dict[int, list[Normalized]] = {}
    for pair in pairs:
        if id(pair.norm) in gone:
            chosen.setdefault(id(pair.kernel.operation), []).append(pair)
    copies = LayerCopies()
    made: dict[int, tuple[Any, Any]] = {}

    def apply(call: Call, tensors: list[Any]) -> list[Any]:
        if id(call) in gone:
            return tensors[:1]
        layer = call.operation
        if isinstance(layer, keras.layers.Layer):
            changed = _changes(layer) if id(layer) in chosen else {}
            made[id(layer)] = layer, copies.of(layer, **changed)
        return copies.call(call, tensors)

    def values(layer: Any) -> list[Any]:
        return _folded(layer, chosen.get(id(layer), []))

    copy = rebuild(model, apply, flow=flow)
    copies.carry_weights(values)
    twins = {}
    for layer, own in made.values():  # what is inside a layer is there once it is built
        parts = zip(layer._flatten_layers(), own._flatten_layers(), strict=True)
        twins.update({id(part): twin for part, twin in parts})
    return copy, twins, [found[0].kernel.name for found in chosen.values()]


def _changes(layer: Any) -> dict[str, Any]:
    """What a layer's configuration becomes.

    A normalization undid what a penalty on the kernel's size did to it; without one the
    penalty would shrink what the layer gives, so it goes with it.
    """
    kind = type(layer).__name__
    name = next((n for n in ("Separable", "Depthwise") if n in kind), "")
    penalty = {"Separable": "pointwise_regularizer", "Depthwise": "depthwise_regularizer"}
    return {"use_bias": True, penalty.get(name, "kernel_regularizer"): None}


def foldable(pairs: list[Normalized], layers: Collection[str] | None) -> set[int]:
    """Returns ids of the calls of normalizations that go: into all their kernels or into none."""
    wanted = {id(p.norm) for p in pairs if layers is None or p.kernel.name in layers}
    return wanted - {id(p.norm) for p in pairs if p.hindrance}


def _before(value: Value, makers: Any, uses: Any) -> tuple[Call | None, bool]:
    """The kernel's call that gives a value, and whether nothing else takes what it gives."""
    alone = uses[value] == 1
    maker = makers.get(value)
    while maker is not None and maker.kind in _IDLE:
        value = maker.inputs[0]
        alone, maker = alone and uses[value] == 1, makers.get(value)
    if maker is None or maker.kind not in _KERNELS:
        return None, alone
    linear = getattr(maker.operation.activation, "__name__", "") == "linear"
    return (maker if linear else None), alone


def _behind(value: Value, flow: Walk, uses: Any) -> list[Call]:
    """The Dense calls that take a value; none where something else takes it as well."""
    found: list[Call] = []
    pending = [value]
    while pending:
        wanted = pending.pop()
        users = [call for call in flow.calls if wanted in call.inputs]
        if len(users) != uses[wanted]:  # an output of the model
            return []
        for user in users:
            if user.kind in _IDLE:
                pending.append(user.outputs[0])
            elif user.kind == "Dense":
                found.append(user)
            else:
                return []
    return found


def _hindrance(norm: Call, kernel: Call, calls: Any, alone: bool) -> str | None:
    layer, bn = kernel.operation, norm.operation
    rank = len(norm.inputs[0].shape)
    axis = bn.axis[0] if isinstance(bn.axis, list | tuple) else bn.axis
    channels = 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1
    if calls[id(layer)] > 1:
        return "its layer is used several times"
    if not alone:
        return "its layer's output goes elsewhere too"
    if axis % rank != channels:
        return "it normalizes another axis"
    if norm.node.arguments.kwargs.get("training") or norm.training:
        return "it is called with training=True"
    return None


def _affine(norm: Any) -> tuple[np.ndarray, np.ndarray]:
    """Factor and offset a channel of a BatchNormalization in inference, float64."""
    mean, variance = (np.asarray(v, np.float64) for v in (norm.moving_mean, norm.moving_variance))
    factor = 1.0 / np.sqrt(variance + norm.epsilon)
    if norm.gamma is not None:
        factor = factor * np.asarray(norm.gamma, np.float64)
    offset = -mean * factor
    return factor, offset if norm.beta is None else offset + np.asarray(norm.beta, np.float64)


def _folded(layer: Any, pairs: list[Normalized]) -> list[np.ndarray]:
    """The layer's weights, its bias among them, with normalizations multiplied in."""
    weights = layer.get_weights()
    if not pairs:
        return weights
    *first, kernel = weights[:-1] if layer.use_bias else weights
    bias = weights[-1].astype(np.float64) if layer.use_bias else np.zeros(1)
    kernel = kernel.astype(np.float64)
    # What stands before the layer comes first.
    for pair in sorted(pairs, key=lambda pair: not pair.behind):
        factor, offset = _affine(pair.norm.operation)
        if pair.behind:  # (x f + o) W + b = x (f W) + (o W + b), with f and o a row
            kernel, bias = kernel * factor[:, None], bias + offset @ kernel
        else:
            kernel, bias = kernel * _beside(factor, layer, kernel), bias * factor + offset
    return [*first, kernel, bias]


def _beside(factor: np.ndarray, layer: Any, kernel: np.ndarray) -> np.ndarray:
    """A factor a channel, in a shape that goes over the kernel."""
    if type(layer).__name__.startswith("Depthwise"):
        return factor.reshape(kernel.shape[-2:])
    return factor[:, None] if type(layer).__name__.endswith("Transpose") else factor
