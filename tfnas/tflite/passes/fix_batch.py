"""Pass: a batch of one size for a model that leaves it open."""

from __future__ import annotations

import dataclasses

from tfnas.graph.functional import LayerCopies, rebuild
from tfnas.quantization.fused_lstm import fused_layers
from tfnas.tflite.passes.conversion_state import Conversion


def fix_batch(conversion: Conversion) -> Conversion:
    """Fixes the batch where that is asked for, or where a layer becomes a fused operator.

    A fused operator holds a state for each example: its batch is 1.

    Args:
        conversion: A model in its last form.

    Returns:
        The conversion, with the changed model.
    """
    model = conversion.model
    size = conversion.batch_size
    if all(tensor.shape[0] is not None for tensor in model.inputs):
        return conversion
    if size is None and not fused_layers(model):
        return conversion
    copies = LayerCopies()
    fixed = rebuild(model, copies.call, class_of=None, batch_size=size or 1)
    copies.carry_weights()
    return dataclasses.replace(conversion, model=fixed)
