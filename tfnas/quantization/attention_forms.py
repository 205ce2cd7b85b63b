"""Attention as operations that have integer kernels.

MultiHeadAttention and GroupQueryAttention are opened into their projections, products and softmax,
which :class:`~tfnas.quantization.fake_quant_placement.FakeQuantBuilder` rounds one by one. The
factor of the scores goes to the queries, where their projection takes it up.

**Masks.** The scores of masked places are replaced by the lowest number that the integers stand for
(a SELECT, which is exact), before a softmax. An additive mask would need a range up to its -1e9.
The lowest number is the least maximum of a row minus ln(256 n) for n places: all masked places of a
row get at most one step of its probabilities, 1/256, together. Scores below it are clipped, which
gives each of them as little.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfnas.graph.functional import Call, LayerCopies, Value, walk
from tfnas.graph.registered_layers import is_of_keras, register_layer
from tfnas.keras_private import mask_of, set_mask
from tfnas.quantization.attention_scores import Note, attention_scores
from tfnas.quantization.call_forms import EQUAL_MASKED, MASKED
from tfnas.quantization.fake_quant import FakeQuant, extremes_instead_of_histograms
from tfnas.quantization.quantized_kernel import PACKAGE

_PROJECTED = ("MultiHeadAttention", "GroupedQueryAttention")
Apply = Callable[[Call, list[Any]], list[Any]]


def opened_attention(call: Call, tensors: list[Any], apply: Apply) -> list[Any] | None:
    """Applies a function to the calls inside an attention layer, one after the other.

    A layer stays closed whose attention is over several axes, or whose mask depends on the length
    of a sequence of unknown length.

    Args:
        call: The call.
        tensors: A tensor for each of its inputs.
        apply: Takes a call and its tensors, and returns those of its outputs.

    Returns:
        A tensor for each of the call's outputs; None for a call that stays closed.
    """
    layer = call.operation
    if call.kind not in _PROJECTED or not is_of_keras(type(layer)):
        return None
    arguments = _arguments(call, tensors)
    for name in ("query", "value", "key"):
        # Keras reads these masks when the model runs, and records no argument.
        mask = mask_of(arguments.get(name))
        if mask is not None and arguments.get(f"{name}_mask") is None:
            arguments[f"{name}_mask"] = mask
    if any(len(arguments[name].shape) != 3 for name in ("query", "value")):
        return None
    inner, given = _inside(layer, arguments)
    if inner is None:
        return None
    flow = walk(inner)
    values: dict[Value, Any] = dict(zip(flow.inputs, map(_without_mask, given), strict=True))
    for each in flow.calls:
        named = dataclasses.replace(each, name=f"{call.name}/{each.name}", training=call.training)
        results = apply(named, [values[value] for value in each.inputs])
        values.update(zip(each.outputs, results, strict=True))
    outputs = [values[value] for value in flow.outputs]
    if (passed := mask_of(arguments["query"])) is not None:
        set_mask(outputs[0], passed)
    return outputs


def _without_mask(tensor: Any) -> Any:
    """The same numbers without the mask that Keras attaches, of which the parts would warn."""
    if mask_of(tensor) is None or None in tensor.shape[1:]:
        return tensor
    return keras.ops.reshape(tensor, (-1, *tensor.shape[1:]))


def _inside(layer: Any, arguments: dict[str, Any]) -> tuple[keras.Model | None, list[Any]]:
    """A functional model of a layer's call, and the tensors for its inputs."""
    new: dict[int, tuple[Any, Any]] = {}
    named = {}
    for name, value in arguments.items():
        if isinstance(value, keras.KerasTensor):
            if id(value) not in new:
                new[id(value)] = value, keras.Input(batch_shape=value.shape, dtype=value.dtype)
            value = new[id(value)][1]
        named[name] = value
    if isinstance(layer, keras.layers.MultiHeadAttention) and named.get("query_mask") is not None:
        set_mask(named["query"], named["query_mask"])  # the layer reads it there
    given, inputs = [list(each) for each in zip(*new.values(), strict=True)]
    try:
        return keras.Model(inputs, layer.call(**named)), given
    except (TypeError, ValueError):  # a mask of sizes that are not known
        return None, []


def plain_attention(
    call: Call, tensors: list[Any], copies: LayerCopies, note: Note, bits: int
) -> list[Any] | None:
    """Computes attention of one head by layers and operations that have integer forms.

    Args:
        call: A call of `keras.ops.dot_product_attention`, of an Attention or AdditiveAttention
            layer or of a Softmax layer with a mask.
        tensors: A tensor for each of its inputs.
        copies: Gives the layers their names.
        note: Takes each layer with weights of the new model, and the call.
        bits: Bits of the activations.

    Returns:
        The tensors of its outputs; None for any other call.
    """
    if call.kind == "Softmax" and (mask := _arguments(call, tensors).get("mask")) is not None:
        scores = keras.ops.where(mask, tensors[0], MASKED)
        weights = copies.of(call.operation)(scores)
        return [keras.ops.where(mask, weights, 0.0)]  # in rows without any place, as in Keras
    if call.kind == "DotProductAttention":
        return _dot_product_attention(call, tensors, copies)
    if call.kind in ("Attention", "AdditiveAttention") and is_of_keras(type(call.operation)):
        return _attention(call, tensors, copies, note, bits)
    return None


def averaged_places(call: Call, tensors: list[Any], copies: LayerCopies) -> list[Any] | None:
    """Computes the average over the steps that a mask leaves, as attention with equal scores.

    In integers its weights are in steps of 1/256, as those of any softmax.

    Args:
        call: A call of GlobalAveragePooling1D with a mask.
        tensors: A tensor for each of its inputs.
        copies: Gives the layers their names.

    Returns:
        The average; None for any other call.
    """
    if call.kind != "GlobalAveragePooling1D" or not is_of_keras(type(call.operation)):
        return None
    mask = _arguments(call, tensors).get("mask")
    layer = call.operation
    if mask is None or layer.data_format != "channels_last" or layer.keepdims:
        return None
    path = call.name.replace("/", "_")
    scores = keras.ops.where(mask, 0.0, EQUAL_MASKED)
    weights = keras.layers.Softmax(name=copies.unique(f"{path}_weights"))(scores)
    return [keras.ops.einsum("bt,btc->bc", weights, tensors[0])]


def _dot_product_attention(call: Call, tensors: list[Any], copies: LayerCopies) -> list[Any] | None:
    named = _arguments(call, tensors)
    query, key, value = (named[name] for name in ("query", "key", "value"))
    if named.get("bias") is not None or call.operation.attn_logits_soft_cap:
        return None
    if any(len(t.shape) != 4 for t in (query, key, value)):
        return None
    scale = named.get("scale") or 1.0 / math.sqrt(query.shape[-1])
    mask = named.get("mask")
    if call.operation.is_causal:
        if query.shape[1] is None or key.shape[1] is None:
            return None
        causal = np.tril(np.ones((1, 1, query.shape[1], key.shape[1]), bool))
        mask = causal if mask is None else keras.ops.logical_and(mask, causal)
    groups = query.shape[2] // key.shape[2]
    if groups > 1:
        key, value = (keras.ops.repeat(each, groups, axis=2) for each in (key, value))
    path = call.name.replace("/", "_")
    query = keras.layers.Rescaling(scale, name=copies.unique(f"{path}_scale"))(query)
    scores = keras.ops.einsum("btnh,bsnh->bnts", query, key)
    weights = _softmax(scores, mask, path, copies)
    return [keras.ops.einsum("bnts,bsnh->btnh", weights, value)]


def _attention(
    call: Call, tensors: list[Any], copies: LayerCopies, note: Note, bits: int
) -> list[Any] | None:
    layer, named = call.operation, _arguments(call, tensors)
    query, value, *rest = named["inputs"]
    key = rest[0] if rest else value
    if any(len(t.shape) != 3 for t in (query, key, value)):
        return None
    masks = named.get("mask") or [mask_of(query), mask_of(value)]
    of_query, of_value = masks[:2]
    mask = None if of_value is None else keras.ops.expand_dims(of_value, 1)
    if named.get("use_causal_mask"):
        if query.shape[1] is None or key.shape[1] is None:
            return None
        causal = np.tril(np.ones((1, query.shape[1], key.shape[1]), bool))
        mask = causal if mask is None else keras.ops.logical_and(mask, causal)
    path = call.name.replace("/", "_")
    scores = attention_scores(call, query, key, copies, note, bits)
    weights = _softmax(scores, mask, path, copies)
    used = weights
    if layer.dropout:
        used = keras.layers.Dropout(layer.dropout, name=copies.unique(f"{path}_drop"))(weights)
    output = keras.ops.einsum("bts,bsd->btd", used, value)
    if of_query is not None:
        output = keras.ops.where(keras.ops.expand_dims(of_query, -1), output, 0.0)
    return [output, weights][: len(call.outputs)]


def _softmax(scores: Any, mask: Any, path: str, copies: LayerCopies) -> Any:
    if mask is not None:
        scores = keras.ops.where(mask, scores, MASKED)
    return keras.layers.Softmax(name=copies.unique(f"{path}_softmax"))(scores)


def _arguments(call: Call, tensors: list[Any]) -> dict[str, Any]:
    args, kwargs = call.arguments(tensors)
    given = dict(inspect.signature(call.operation.call).bind_partial(*args, **kwargs).arguments)
    return given


@register_layer(macs=0)
@keras.saving.register_keras_serializable(PACKAGE)
class ScoresRange(FakeQuant):
    """Fake quantization of scores before a softmax that leaves places out; see the module."""

    def __init__(self, ranges: str = "moving_average", **kwargs: Any) -> None:
        # What it observes are two ends of a range.
        super().__init__(ranges=extremes_instead_of_histograms(ranges), **kwargs)
        self.build(None)

    def call(  # type: ignore[override]
        self, x: Any, mask: Any, training: bool | None = None
    ) -> Any:
        """Returns rounded scores, with the lowest number of the range at masked places.

        Args:
            x: Scores, (..., places).
            mask: Whether each place counts; of a shape that goes with that of the scores.
            training: Whether the range is observed.
        """
        mask = tf.cast(mask, tf.bool)
        value = tf.cast(x, tf.float32)
        if (training or self.observing) and not self.frozen:
            self._observe_places(value, mask)
        if not self.active:
            return tf.where(mask, x, tf.cast(MASKED, x.dtype))
        if training and self.ranges == "learned" and not self.frozen:
            rounded = self._round_learned(value)
            low, _ = self.grid_range()
            return tf.cast(tf.where(mask, rounded, low), x.dtype)
        low, high = self.grid_range()
        options = {"num_bits": self.bits, "narrow_range": self.symmetric}
        rounded = tf.quantization.fake_quant_with_min_max_vars(value, low, high, **options)
        chosen = tf.where(mask, rounded, low)
        return tf.cast(
            tf.quantization.fake_quant_with_min_max_vars(chosen, low, high, **options), x.dtype
        )

    def _observe_places(self, value: Any, mask: Any) -> None:
        value = tf.stop_gradient(value)
        least = tf.constant(np.finfo(np.float32).min)
        open_places = tf.where(mask, value, least)
        ends = tf.reduce_max(open_places, axis=-1)
        counts = tf.greater(ends, least)  # rows of masked places alone have no range
        lowest = tf.reduce_min(tf.where(counts, ends, tf.zeros_like(ends)))
        places = tf.cast(tf.shape(value)[-1], tf.float32)
        margin = tf.math.log(2.0**self.bits * places)
        low = tf.minimum(lowest, 0.0) - margin
        high = tf.reduce_max(tf.where(counts, ends, tf.zeros_like(ends)))
        self._observe(tf.stack([low, high]))

    def compute_output_spec(  # type: ignore[override]
        self, x: Any, mask: Any, training: bool | None = None
    ) -> Any:
        """Returns the scores' shape and type."""
        return keras.KerasTensor(x.shape, x.dtype)
