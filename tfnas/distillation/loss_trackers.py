"""Means of the parts of the loss over an epoch, for the history of a training.

They are plain members of this object: Keras would otherwise write them into every checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf
from keras import ops

if TYPE_CHECKING:
    from tfnas.distillation.tensor_types import Tensor

STUDENT, DISTILLATION, FEATURES = "student_loss", "distillation_loss", "feature_loss"


class LossTrackers:
    """One mean for each part of the loss: "student_loss", "distillation_loss" and so on.

    Args:
        names: Names of the outputs. Where there are several, each has parts of its own, such as
            "NAME_student_loss".
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._outputs = names if len(names) > 1 else ()
        parts = [f"{name}_{part}" for name in self._outputs for part in (STUDENT, DISTILLATION)]
        names = (STUDENT, DISTILLATION, FEATURES, *parts)
        self._means = {name: keras.metrics.Mean(name=name) for name in names}
        self._seen: frozenset[str] = frozenset()  # in the step that is traced

    def __iter__(self) -> Iterator[keras.metrics.Mean]:
        return iter(self._means.values())

    def update(
        self, examples: Tensor, parts: Mapping[str, Any], outputs: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Adds the parts of a batch's loss.

        Args:
            examples: Number of examples in the batch.
            parts: Part -> its scalar over all outputs, scaled for the optimizer.
            outputs: Name of an output -> the same of this output; used where there are several.
        """
        named = {
            f"{name}_{part}": value
            for name in self._outputs
            for part, value in outputs[name].items()
        }
        self._seen = frozenset({**parts, **named})
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        for name, value in {**parts, **named}.items():
            # Keras divides losses by the number of replicas, whose gradients are added up.
            self._means[name].update_state(ops.cast(value, "float32") * replicas, examples)

    def has_values(self, metric: keras.metrics.Metric) -> bool:
        """Whether a metric is none of these, or one that the current epoch updates."""
        if not any(metric is own for own in self):
            return True
        if tf.executing_eagerly():
            return bool(metric.count > 0)
        return metric.name in self._seen
