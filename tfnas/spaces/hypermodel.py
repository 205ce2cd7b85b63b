"""A search space as a `keras_tuner.HyperModel`, so that any keras_tuner Tuner takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import keras_tuner as kt
import tensorflow as tf

from tfnas.architecture import Architecture
from tfnas.spaces.space import SearchSpace


def compile_for_search(model: keras.Model, **arguments: Any) -> keras.Model:
    """Compiles a classifier with what the caller gave, and sensible values for the rest.

    XLA is left off without an accelerator: on a CPU it makes the training of depthwise
    convolutions about three times slower.

    Args:
        model: The model.
        **arguments: As for `keras.Model.compile`. Defaults: Adam at 0.003, sparse
            categorical cross-entropy, accuracy.
    """
    defaults = {
        "optimizer": keras.optimizers.Adam(3e-3),
        "loss": "sparse_categorical_crossentropy",
        "metrics": ["accuracy"],
        "jit_compile": "auto" if tf.config.list_physical_devices("GPU") else False,
    }
    given = {name: fresh_copy(value) for name, value in arguments.items()}
    model.compile(**{**defaults, **given})
    return model


def fresh_copy(value: Any) -> Any:
    """Returns an optimizer that no model has used yet; anything else as it is."""
    if isinstance(value, keras.optimizers.Optimizer):
        return keras.optimizers.deserialize(keras.optimizers.serialize(value))
    return value


class SpaceHyperModel(kt.HyperModel):
    """Builds and compiles the architecture that the hyperparameters describe.

    Example:
        >>> import keras_tuner, tfnas
        >>> space = tfnas.MobileNetV2Space((28, 28, 1), 10)
        >>> tuner = keras_tuner.RandomSearch(space.hypermodel(), "val_accuracy")

    Args:
        space: The search space.
        configure: Optional function of the built model that compiles it; instead of
            `compile_arguments`.
        **compile_arguments: As for `keras.Model.compile`; see :func:`compile_for_search`.
    """

    def __init__(
        self,
        space: SearchSpace,
        configure: Callable[[keras.Model], Any] | None = None,
        **compile_arguments: Any,
    ):
        super().__init__()
        if configure is not None and compile_arguments:
            raise ValueError(
                f"configure must stand alone, got {', '.join(compile_arguments)} beside it"
            )
        self.space = space
        self.configure = configure
        self.compile_arguments = compile_arguments

    def declare_hyperparameters(self, hp: kt.HyperParameters) -> None:
        """Declares all hyperparameters without building a model."""
        self.space.declare(hp)

    def architecture(self, hp: kt.HyperParameters) -> Architecture:
        """Returns the architecture that the hyperparameters describe."""
        return self.space.declare(hp)

    def build(self, hp: kt.HyperParameters) -> keras.Model:
        """Returns the compiled model that the hyperparameters describe."""
        model = self.space.build(self.architecture(hp))
        if self.configure is not None:
            self.configure(model)
            return model
        return compile_for_search(model, **self.compile_arguments)
