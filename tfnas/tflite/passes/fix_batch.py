"""Pass: a batch of 1 for a model with a fused operator, which holds a state for each example."""

from __future__ import annotations

import dataclasses

from tfnas.graph.functional import LayerCopies, rebuild
from tfnas.quantization.fused_lstm import fused_layers
from tfnas.tflite.passes.conversion_state import Conversion


def fix_batch(conversion: Conversion) -> Conversion:
    """Fixes the batch at 1 where a layer becomes a fused operator and the model leaves it open.

    Args:
        conversion: A model in its last form.

    Returns:
        The conversion, with the changed model.
    """
    model = conversion.model
    if not fused_layers(model) or all(tensor.shape[0] is not None for tensor in model.inputs):
        return conversion
    copies = LayerCopies()
    fixed = rebuild(model, copies.call, class_of=None, batch_size=1)
    copies.carry_weights()
    return dataclasses.replace(conversion, model=fixed)
