"""Folding of BatchNormalization into kernels, before they are clustered.

A `.tflite` file has no BatchNormalization: in inference it is a factor and an offset per
channel, and the converter multiplies the factor into the kernel of the layer before. k shared
values then become k per channel. Folding in the Keras model, before clustering, avoids this: the
kernels of the model are then those of the file.

TensorFlow's converter (2.21) folds into the convolution or Dense layer before the normalization.
If there is none, it folds into a Dense layer directly after it, with one factor per *row*, so
that shared values per channel would be lost too. It does not fold into a convolution after it.

References:
    Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018, section 3.2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import keras
import numpy as np

from tfnas.clustering.clusterable_kernels import SINGLE_KERNEL_LAYERS
from tfnas.graph.compatibility import check_float
from tfnas.graph.functional import Call, LayerCopies, Value, Walk, rebuild, walk
from tfnas.graph.functional_form import as_functional
from tfnas.graph.idle_layers import IDLE
from tfnas.graph.kernel_state import channels_share_values, kernel_compression
from tfnas.keras_private import all_layers

_KERNELS = (*SINGLE_KERNEL_LAYERS, "SeparableConv1D", "SeparableConv2D")


@dataclasses.dataclass(frozen=True, eq=False)
class NormalizedKernel:
    """A BatchNormalization and the kernel that the converter folds it into.

    Args:
        norm: The call of the BatchNormalization.
        kernel: The call of the layer that the converter folds it into.
        norm_first: Whether the normalization comes before that layer.
        obstacle: Why it can't be folded, None if it can.
    """

    norm: Call
    kernel: Call
    norm_first: bool
    obstacle: str | None


def fold_batchnorm(
    model: keras.Model, layers: Collection[str] | None = None
) -> tuple[keras.Model, list[str]]:
    """Folds each BatchNormalization into a kernel beside it, as conversion to `.tflite` does.

    Returns a copy of the model, which gives the same outputs in inference. It has no nested
    models, and its folded layers have a bias and no kernel regularizer. Further training is
    without these normalizations.

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
        model: A Keras 3 model, such as one of images
            (batch, height, width, channels).
        layers: Paths of the layers to fold into; None: all possible ones.

    Returns:
        The copy, not compiled, and the paths of the layers that were folded into.

    Raises:
        ValueError: The connections of the model's layers are unknown, or a kernel to fold into
            is clustered, which would be lost.

    References:
        Jacob et al., "Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference", CVPR 2018, section 3.2.
    """
    check_float(model, "fold_batchnorm")
    model = as_functional(model)
    flow = walk(model)
    pairs = normalized_kernels(flow)
    folded_norms = foldable(pairs, layers)
    for pair in pairs:
        if id(pair.norm) in folded_norms:
            _check_shared(pair)
    folded, _, names = folded_copy(model, pairs, layers, flow)
    return folded, names


def _check_shared(pair: NormalizedKernel) -> None:
    """Raises if the kernel is clustered; a factor per channel keeps values shared per channel."""
    for variable in pair.kernel.operation.trainable_variables:
        kernel = np.asarray(variable)
        loses_clusters = pair.norm_first or channels_share_values(kernel)
        if kernel.ndim > 1 and loses_clusters and kernel_compression(kernel) == "clusters":
            raise ValueError(
                f"model must not be clustered before fold_batchnorm, got shared values in "
                f"{pair.kernel.name!r}, which would be lost: fold first, or use tfnas.cluster"
            )


def normalized_kernels(flow: Walk) -> list[NormalizedKernel]:
    """Returns each BatchNormalization that the converter would fold into a kernel.

    Args:
        flow: The calls of a model.
    """
    found = []
    for norm in (call for call in flow.calls if call.kind == "BatchNormalization"):
        before, alone = _before(norm.inputs[0], flow)
        if before is not None:
            reason = _obstacle(norm, before, flow, alone)
            found.append(NormalizedKernel(norm, before, False, reason))
            continue
        behind = _behind(norm.outputs[0], flow)
        found += [NormalizedKernel(norm, b, True, _obstacle(norm, b, flow, True)) for b in behind]
    return found


def folded_copy(
    model: Any, pairs: list[NormalizedKernel], layers: Collection[str] | None, flow: Walk
) -> tuple[Any, dict[int, Any], list[str]]:
    """Folds BatchNormalization in a copy of a model.

    Args:
        model: A functional or Sequential model.
        pairs: Result of :func:`normalized_kernels` for it.
        layers: Paths of the layers to fold into; None: all possible ones.
        flow: The calls of the model.

    Returns:
        The copy, the copy of each layer by the Python id of the layer, and the paths of the
        layers that were folded into.
    """
    folded_norms = foldable(pairs, layers)
    chosen: dict[int, list[NormalizedKernel]] = {}
    for pair in pairs:
        if id(pair.norm) in folded_norms:
            chosen.setdefault(id(pair.kernel.operation), []).append(pair)
    copies = LayerCopies()
    copied: dict[int, tuple[Any, Any]] = {}

    def apply(call: Call, tensors: list[Any]) -> list[Any]:
        if id(call) in folded_norms:
            return tensors[:1]
        layer = call.operation
        if isinstance(layer, keras.layers.Layer):
            changed = _changes(layer) if id(layer) in chosen else {}
            copied[id(layer)] = layer, copies.of(layer, **changed)
        return copies.call(call, tensors)

    def values(layer: Any) -> list[Any]:
        return _folded(layer, chosen.get(id(layer), []))

    copy = rebuild(model, apply, class_of=model, flow=flow)
    copies.carry_weights(values)
    copy_of = {}
    for layer, own in copied.values():  # the inner layers exist after the layer is built
        parts = zip(all_layers(layer), all_layers(own), strict=True)
        copy_of.update({id(part): part_copy for part, part_copy in parts})
    return copy, copy_of, [found[0].kernel.name for found in chosen.values()]


def _changes(layer: Any) -> dict[str, Any]:
    """The changes of a layer's configuration: a bias, and no kernel regularizer.

    A normalization cancels the effect of a regularizer on the scale of the outputs; without the
    normalization the regularizer would shrink the outputs.
    """
    kind = type(layer).__name__
    name = next((n for n in ("Separable", "Depthwise") if n in kind), "")
    penalty = {"Separable": "pointwise_regularizer", "Depthwise": "depthwise_regularizer"}
    return {"use_bias": True, penalty.get(name, "kernel_regularizer"): None}


def foldable(pairs: list[NormalizedKernel], layers: Collection[str] | None) -> set[int]:
    """Returns the ids of the norm calls to fold, each into all of its kernels or into none.

    Args:
        pairs: Result of :func:`normalized_kernels`.
        layers: Paths of the layers to fold into; None: all possible ones.
    """
    selected = {id(p.norm) for p in pairs if layers is None or p.kernel.name in layers}
    return selected - {id(p.norm) for p in pairs if p.obstacle}


def _before(value: Value, flow: Walk) -> tuple[Call | None, bool]:
    """The call of the kernel before a value, and whether its output has no other user."""
    uses, producers = flow.uses, flow.producers
    alone = uses[value] == 1
    producer = producers.get(value)
    while producer is not None and producer.kind in IDLE:
        value = producer.inputs[0]
        alone, producer = alone and uses[value] == 1, producers.get(value)
    if producer is None or producer.kind not in _KERNELS:
        return None, alone
    linear = getattr(producer.operation.activation, "__name__", "") == "linear"
    return (producer if linear else None), alone


def _behind(value: Value, flow: Walk) -> list[Call]:
    """The Dense calls that use a value; none if anything else uses it too."""
    found: list[Call] = []
    pending = [value]
    while pending:
        current = pending.pop()
        users = flow.readers[current]
        if len(users) != flow.uses[current]:  # an output of the model
            return []
        for user in users:
            if user.kind in IDLE:
                pending.append(user.outputs[0])
            elif user.kind == "Dense":
                found.append(user)
            else:
                return []
    return found


def _obstacle(norm: Call, kernel: Call, flow: Walk, alone: bool) -> str | None:
    layer, bn = kernel.operation, norm.operation
    rank = len(norm.inputs[0].shape)
    axis = bn.axis[0] if isinstance(bn.axis, list | tuple) else bn.axis
    channels = 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1
    if len(flow.calls_of(layer)) > 1:
        return "its layer is called several times"
    if not alone:
        return "its layer's output is also used elsewhere"
    if axis % rank != channels:
        return "it normalizes another axis"
    if norm.node.arguments.kwargs.get("training") or norm.training:
        return "it is called with training=True"
    return None


def _affine(norm: Any) -> tuple[np.ndarray, np.ndarray]:
    """Factor and offset per channel of a BatchNormalization in inference, (channels,), float64."""
    mean, variance = (np.asarray(v, np.float64) for v in (norm.moving_mean, norm.moving_variance))
    factor = 1.0 / np.sqrt(variance + norm.epsilon)
    if norm.gamma is not None:
        factor = factor * np.asarray(norm.gamma, np.float64)
    offset = -mean * factor
    return factor, offset if norm.beta is None else offset + np.asarray(norm.beta, np.float64)


def _folded(layer: Any, pairs: list[NormalizedKernel]) -> list[np.ndarray]:
    """The layer's weights with a bias, after folding."""
    weights = layer.get_weights()
    if not pairs:
        return weights
    *first, kernel = weights[:-1] if layer.use_bias else weights
    bias = weights[-1].astype(np.float64) if layer.use_bias else np.zeros(1)
    kernel = kernel.astype(np.float64)
    # A normalization before the layer is folded first.
    for pair in sorted(pairs, key=lambda pair: not pair.norm_first):
        factor, offset = _affine(pair.norm.operation)
        if pair.norm_first:  # (x f + o) W + b = x (f W) + (o W + b), with one f and o per row
            kernel, bias = kernel * factor[:, None], bias + offset @ kernel
        else:
            kernel, bias = kernel * _broadcast(factor, layer, kernel), bias * factor + offset
    return [*first, kernel, bias]


def _broadcast(factor: np.ndarray, layer: Any, kernel: np.ndarray) -> np.ndarray:
    """A factor per channel, in a shape that broadcasts over the kernel."""
    if type(layer).__name__.startswith("Depthwise"):
        return factor.reshape(kernel.shape[-2:])
    return factor[:, None] if type(layer).__name__.endswith("Transpose") else factor
