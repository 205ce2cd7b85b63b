"""The network of all-MiniLM-L6-v2 in layers of Keras, and its formulas in NumPy beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers, ops

WIDTH, HEADS, BLOCKS, INSIDE, EPSILON = 384, 12, 6, 1536, 1e-12
_SIZE = WIDTH // HEADS
Weights = Mapping[str, np.ndarray]


def network(weights: Weights, length: int) -> keras.Model:
    """Returns the network: numbers of pieces (sentences, length) to vectors (sentences, 384).

    Layers have the names of their arrays in the file.

    Args:
        weights: Arrays by their names in the file.
        length: Pieces of a sentence; the number 0 stands for none.
    """
    ids = keras.Input((length,), dtype="int32", name="ids")
    mask = ops.not_equal(ids, 0)
    pieces = weights["embeddings.word_embeddings.weight"].shape[0]
    words = layers.Embedding(pieces, WIDTH, name="embeddings.word_embeddings")(ids)
    numbers = ops.cumsum(ops.ones_like(ids), axis=1) - 1
    places = layers.Embedding(length, WIDTH, name="embeddings.position_embeddings")(numbers)
    x = _norm("embeddings")(layers.Add(name="sum")([words, places]))
    for number in range(BLOCKS):
        x = _block(f"encoder.layer.{number}", x, mask)
    vectors = layers.GlobalAveragePooling1D(name="mean")(x, mask=mask)
    model = keras.Model(ids, vectors, name="minilm")
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(_values(layer, weights, length))
    return model


def _block(name: str, x: Any, mask: Any) -> Any:
    attention = layers.MultiHeadAttention(HEADS, _SIZE, name=f"{name}.attention")
    seen = attention(x, x, attention_mask=ops.expand_dims(mask, 1))
    x = _norm(f"{name}.attention.output")(layers.Add(name=f"{name}.sum")([x, seen]))
    inside = layers.Dense(INSIDE, activation="gelu", name=f"{name}.intermediate.dense")(x)
    inside = layers.Dense(WIDTH, name=f"{name}.output.dense")(inside)
    return _norm(f"{name}.output")(layers.Add(name=f"{name}.second_sum")([x, inside]))


def _norm(name: str) -> layers.Layer:
    return layers.LayerNormalization(epsilon=EPSILON, name=f"{name}.LayerNorm")


def _values(layer: Any, weights: Weights, length: int) -> list[np.ndarray]:
    """The arrays of a layer as Keras lays them out."""
    name = layer.name
    if isinstance(layer, layers.LayerNormalization):
        return [weights[f"{name}.weight"], weights[f"{name}.bias"]]
    if isinstance(layer, layers.Dense):
        return [weights[f"{name}.weight"].T, weights[f"{name}.bias"]]
    if isinstance(layer, layers.Embedding):
        return [_table(name, weights, length)]
    parts = [f"{name}.self.{part}" for part in ("query", "key", "value")]
    heads = [
        array
        for part in parts
        for array in (
            weights[f"{part}.weight"].T.reshape(WIDTH, HEADS, _SIZE),
            weights[f"{part}.bias"].reshape(HEADS, _SIZE),
        )
    ]
    output = weights[f"{name}.output.dense.weight"].T.reshape(HEADS, _SIZE, WIDTH)
    return [*heads, output, weights[f"{name}.output.dense.bias"]]


def _table(name: str, weights: Weights, length: int) -> np.ndarray:
    if name.endswith("word_embeddings"):
        return weights[f"{name}.weight"]
    # All pieces are of the first sentence of a pair: its row goes into the table of places.
    first: np.ndarray = weights["embeddings.token_type_embeddings.weight"][0]
    return weights[f"{name}.weight"][:length] + first


def vectors_by_formulas(weights: Weights, ids: np.ndarray) -> np.ndarray:
    """Returns what the network computes by its formulas in float64, (sentences, 384).

    Args:
        weights: Arrays by their names in the file.
        ids: Numbers of pieces, (sentences, length).
    """
    mask = ids != 0
    x = weights["embeddings.word_embeddings.weight"][ids].astype(np.float64)
    x = x + _table("embeddings.position_embeddings", weights, ids.shape[1])
    x = _normalized(x, "embeddings", weights)
    for number in range(BLOCKS):
        name = f"encoder.layer.{number}"
        seen = _attention(x, mask, f"{name}.attention", weights)
        x = _normalized(x + seen, f"{name}.attention.output", weights)
        inside = _dense(x, f"{name}.intermediate.dense", weights)
        inside = inside * 0.5 * (1.0 + _erf(inside / math.sqrt(2.0)))
        inside = _dense(inside, f"{name}.output.dense", weights)
        x = _normalized(x + inside, f"{name}.output", weights)
    found: np.ndarray = (x * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    return found


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _dense(x: np.ndarray, name: str, weights: Weights) -> np.ndarray:
    found: np.ndarray = x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
    return found


def _normalized(x: np.ndarray, name: str, weights: Weights) -> np.ndarray:
    scale, offset = (weights[f"{name}.LayerNorm.{part}"] for part in ("weight", "bias"))
    deviation = np.sqrt(x.var(-1, keepdims=True) + EPSILON)
    found: np.ndarray = (x - x.mean(-1, keepdims=True)) / deviation * scale + offset
    return found


def _attention(x: np.ndarray, mask: np.ndarray, name: str, weights: Weights) -> np.ndarray:
    query, key, value = (
        _dense(x, f"{name}.self.{part}", weights).reshape(*x.shape[:2], HEADS, _SIZE)
        for part in ("query", "key", "value")
    )
    scores = np.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(_SIZE)
    scores = np.where(mask[:, None, None], scores, -np.inf)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    shares = powers / powers.sum(-1, keepdims=True)
    seen = np.einsum("bhqk,bkhd->bqhd", shares, value).reshape(x.shape)
    return _dense(seen, f"{name}.output.dense", weights)
