"""Types of tensors and losses that arguments of distillation take, for annotations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

# A batch of numbers, (batch, ...): a tensor of Keras or TensorFlow, or an array.
Tensor: TypeAlias = "keras.KerasTensor | tf.Tensor | np.ndarray"
# One for each input or output of a model, in its structure; or (labels, teacher's outputs).
Tensors: TypeAlias = "Tensor | Sequence[Tensors] | Mapping[str, Tensors]"
# A Keras loss, its name or a function of (targets, outputs); or, of an output, its kind.
LossLike: TypeAlias = "keras.losses.Loss | str | Callable[[Tensor, Tensor], Tensor]"
# The same for all outputs, or one for each of them.
LossesLike: TypeAlias = "LossLike | Mapping[str, LossLike] | Sequence[LossLike]"
