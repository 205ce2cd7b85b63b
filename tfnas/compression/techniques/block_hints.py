"""Feature losses at the residual sums of a network, for a student that has the same blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    from tfnas.data.examples import Nested
    from tfnas.distillation.feature_losses import FeatureHint


def block_hints(
    student: keras.Model, teacher: keras.Model, inputs: Nested, weight: float = 1.0
) -> list[FeatureHint]:
    """Returns feature losses at the residual sums whose shape student and teacher share.

    Each is divided by the mean square of the teacher's feature, so that all weigh the same.

    Args:
        student: A compressed copy of the teacher, with the same layer names.
        teacher: The model before compression.
        inputs: Typical inputs, examples first.
        weight: Weight of each loss, above 0.
    """
    import keras

    from tfnas.distillation.feature_losses import FeatureHint

    own = {layer.name: layer for layer in student.layers}
    sums = [
        layer
        for layer in teacher.layers
        if type(layer).__name__ == "Add"
        and layer.name in own
        and own[layer.name].output.shape == layer.output.shape
    ]
    if not sums:
        return []
    outputs = [layer.output for layer in sums]
    structure = teacher.inputs[0] if len(teacher.inputs) == 1 else teacher.inputs
    features = keras.Model(structure, outputs)(
        keras.tree.map_structure(lambda array: array.astype("float32"), inputs)
    )
    values = keras.tree.flatten(features)
    squares = [float(keras.ops.mean(keras.ops.square(value))) for value in values]
    return [
        FeatureHint(layer.name, layer.name, weight=weight / square, project=False)
        for layer, square in zip(sums, squares, strict=True)
        if square > 0
    ]
