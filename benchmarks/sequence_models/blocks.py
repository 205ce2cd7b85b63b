"""The encoder of all transformers here."""

from __future__ import annotations

from typing import Any

from keras import layers


def encode(x: Any, *, blocks: int, heads: int, dropout: float) -> Any:
    """Returns what some blocks make of a sequence: attention and two dense layers, each added.

    Sums are normalized; the width between the dense layers is twice that of the sequence.

    Args:
        x: A sequence, (batch, places, width).
        blocks: Number of blocks.
        heads: Heads of the attention.
        dropout: Share of dropped numbers, also of the attention's weights.
    """
    width = x.shape[-1]
    for _ in range(blocks):
        attended = layers.MultiHeadAttention(heads, width // heads, dropout=dropout)(x, x)
        x = layers.LayerNormalization()(layers.Add()([x, layers.Dropout(dropout)(attended)]))
        y = layers.Dense(width)(layers.Dense(2 * width, activation="gelu")(x))
        x = layers.LayerNormalization()(layers.Add()([x, layers.Dropout(dropout)(y)]))
    return x
