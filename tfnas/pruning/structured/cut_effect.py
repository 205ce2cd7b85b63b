"""What a model loses by the removal of channels, before it is trained again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.graph.batchnorm import input_batches
from tfnas.graph.divergence import outputs_of

if TYPE_CHECKING:
    import keras

_EXAMPLES = 256
UNTRAINED = (
    "the channels are gone and nothing is trained yet: fine-tune the model before it is used "
    "(with data, how far the outputs moved is measured here)"
)


def lost_by_the_cut(model: keras.Model, smaller: keras.Model, data: Any) -> list[str]:
    """Returns a remark for the report: how far the outputs moved, or that this is not known.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> lost_by_the_cut(model, model, np.ones((8, 4)))
        ['before training, the outputs on 8 examples moved by 0.0% of their spread']

    Args:
        model: The model before.
        smaller: The model after.
        data: Inputs, or inputs and targets, as for :func:`tfnas.data.batches`; None: none.
    """
    if data is None:
        return [UNTRAINED]
    batches = input_batches(data, limit=_EXAMPLES)
    expected, found = (outputs_of(each, batches) for each in (model, smaller))
    moved = [
        float(np.sqrt(np.mean((new - old) ** 2)) / max(float(old.std()), 1e-12))
        for old, new in zip(expected, found, strict=True)
    ]
    text = f"before training, the outputs on {len(expected[0])} examples moved by {max(moved):.1%}"
    text += " of their spread"
    if all(each.ndim == 2 and each.shape[1] > 1 for each in expected) and len(expected) == 1:
        same = float((expected[0].argmax(axis=1) == found[0].argmax(axis=1)).mean())
        return [f"{text}; the largest one is the same in {same:.0%}"]
    return [text]
