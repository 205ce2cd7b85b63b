"""A criterion for models whose loss is unknown: how far their outputs move."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def output_movement(targets: Any, outputs: Any) -> Any:
    """Returns the mean squared distance of a model's outputs to a noisy copy of themselves.

    Its value is nearly the variance of the noise. Its gradient is a random projection of the
    outputs' gradients, so that criteria of first order rank weights by how far the outputs move
    without them, as the diagonal of the Gauss-Newton matrix does.

    Args:
        targets: Not used: no loss says what they mean.
        outputs: Outputs of the model, (batch, ...), or lists and dictionaries of them.

    References:
        Martens, "New Insights and Perspectives on the Natural Gradient Method", JMLR 2020,
        section 8: squared random projections have the Gauss-Newton diagonal as their mean.
    """
    total: Any = 0.0
    for number, output in enumerate(keras.tree.flatten(outputs)):
        value = ops.stop_gradient(ops.cast(output, "float32"))
        noise = keras.random.normal(ops.shape(value), seed=number)
        target = value + ops.std(value) * noise
        total += ops.mean(ops.square(ops.cast(output, "float32") - target))
    return total
