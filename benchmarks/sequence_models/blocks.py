"""The encoder block of both transformers."""

from __future__ import annotations

from typing import Any

from keras import layers


def encoder(x: Any, heads: int, hidden: int, dropout: float) -> Any:
    """Returns a block's output: attention and two dense layers, each added and normalized.

    Args:
        x: A sequence, (batch, places, width).
        heads: Heads of the attention.
        hidden: Width between the dense layers.
        dropout: Share of dropped numbers, also of the attention's weights.
    """
    width = x.shape[-1]
    attended = layers.MultiHeadAttention(heads, width // heads, dropout=dropout)(x, x)
    x = layers.LayerNormalization()(layers.Add()([x, layers.Dropout(dropout)(attended)]))
    y = layers.Dense(width)(layers.Dense(hidden, activation="gelu")(x))
    return layers.LayerNormalization()(layers.Add()([x, layers.Dropout(dropout)(y)]))
