"""Scores of `keras.layers.Attention` and AdditiveAttention by layers that have integer forms.

- A scale of dot products is a convolution of the queries with one weight, since they are fewer
  numbers than the scores.
- AdditiveAttention sums tanh(query + key) over the features of each pair of places, with a trained
  weight for each feature: that is a convolution of size 1 with one output.
- Without weights of features, as with `score_mode="concat"`, the sum is a mean and a factor, as in
  :mod:`tfnas.quantization.reduction_forms`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from tfnas.graph.functional import Call, LayerCopies
from tfnas.quantization.sum_forms import difference_of

Note = Callable[[Any, Call], None]


def attention_scores(
    call: Call, query: Any, key: Any, copies: LayerCopies, note: Note, bits: int
) -> Any:
    """Returns the scores of each pair of places, before masks and the softmax.

    Args:
        call: A call of `keras.layers.Attention` or AdditiveAttention.
        query: Its queries, (batch, places, features).
        key: Its keys, (batch, other places, features).
        copies: Gives the layers their names, and has them set their weights.
        note: Takes each layer with weights of the new model, and the call.
        bits: Bits of the activations.

    Returns:
        Scores, (batch, places, other places).
    """
    layer, path = call.operation, call.name.replace("/", "_")

    def weighted(name: str, x: Any, weight: Any) -> Any:
        """The sum over the last axis, with a weight for each place of it."""

        def made() -> Any:
            new = keras.layers.Conv2D(1, 1, use_bias=False, name=copies.unique(f"{path}_{name}"))
            values = keras.ops.convert_to_numpy(weight).reshape(1, 1, -1, 1)
            copies.set_later(new, [values])
            return new

        part = copies.part(layer, name, made)
        note(part, call)
        return keras.ops.squeeze(part(x), axis=-1)

    def scaled(x: Any) -> Any:
        if layer.scale is None:
            return x
        return weighted("scale", keras.ops.expand_dims(x, axis=-1), layer.scale)

    additive = call.kind == "AdditiveAttention"
    if not additive and layer.score_mode == "dot":
        return keras.ops.einsum("btd,bsd->bts", scaled(query), key)
    if not additive:
        query, key = scaled(query), scaled(key)
    pairs = _sums_of_pairs(query, key, path, copies, bits)
    pairs = keras.layers.Activation("tanh", name=copies.unique(f"{path}_tanh"))(pairs)
    if additive and layer.scale is not None:
        return weighted("scale", pairs, layer.scale)
    means = keras.ops.mean(pairs, axis=-1, keepdims=True)
    features = float(query.shape[-1])
    sums = keras.layers.Rescaling(features, name=copies.unique(f"{path}_sum"))(means)
    if additive:
        return keras.ops.squeeze(sums, axis=-1)
    return weighted("weight", sums, layer.concat_score_weight)


def _sums_of_pairs(query: Any, key: Any, path: str, copies: LayerCopies, bits: int) -> Any:
    """Query plus key of each pair of places, (batch, places, other places, features)."""
    first, second = keras.ops.expand_dims(query, 2), keras.ops.expand_dims(key, 1)
    name = f"{path}_pairs"
    if bits > 8:
        output, _ = difference_of(first, second, name, copies)
        return output
    return keras.layers.Add(name=copies.unique(name))([first, second])
