"""A search space as a `keras_tuner.HyperModel`, so that any keras_tuner Tuner takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import keras_tuner as kt
import tensorflow as tf

from tfnas.search_space.architecture import Architecture
from tfnas.search_space.compression import Compression
from tfnas.search_space.compression_choices import CompressionSpace
from tfnas.search_space.search_space import SearchSpace


def compile_for_search(model: keras.Model, **arguments: Any) -> keras.Model:
    """Compiles a classifier with defaults for the arguments that are not set.

    XLA is disabled without a GPU: on a CPU it makes the training of depthwise convolutions about
    three times slower.

    Args:
        model: The model.
        **arguments: Arguments of `keras.Model.compile`. Defaults: Adam with a learning rate of
            0.003, sparse categorical cross-entropy, accuracy.

    Returns:
        The model.
    """
    defaults = {
        "optimizer": keras.optimizers.Adam(3e-3),
        "loss": "sparse_categorical_crossentropy",
        "metrics": ["accuracy"],
        "jit_compile": "auto" if tf.config.list_physical_devices("GPU") else False,
    }
    fresh = {name: fresh_copy(value) for name, value in arguments.items()}
    model.compile(**{**defaults, **fresh})
    return model


def fresh_copy(value: Any) -> Any:
    """Returns an unused copy of an optimizer; any other value is returned as it is."""
    if isinstance(value, keras.optimizers.Optimizer):
        return keras.optimizers.deserialize(keras.optimizers.serialize(value))
    return value


class FunctionHyperModel(kt.HyperModel):
    """A hypermodel of a model-building function.

    Args:
        function: The function; it takes `keras_tuner.HyperParameters` and returns a model.
    """

    def __init__(self, function: Callable[[kt.HyperParameters], keras.Model]) -> None:
        super().__init__()
        self.function = function

    def build(self, hp: kt.HyperParameters) -> keras.Model:
        """Builds the model."""
        return self.function(hp)


class CompressedHyperModel(kt.HyperModel):
    """A hypermodel with the choices of a compression as further hyperparameters.

    Example:
        >>> import keras, keras_tuner, tfnas
        >>> def build(hp):
        ...     units = hp.Choice("units", [8, 16])
        ...     return keras.Sequential([keras.Input((4,)), keras.layers.Dense(units)])
        >>> hypermodel = CompressedHyperModel(build, tfnas.CompressionSpace(sparsity=(0, 0.5)))
        >>> hp = keras_tuner.HyperParameters()
        >>> _ = hypermodel.build(hp)
        >>> hp.values["compression_sparsity"], hypermodel.compression(hp).sparsity
        (0.0, 0.0)

    Args:
        hypermodel: A keras_tuner HyperModel or a model-building function.
        choices: The choices of the compression.

    Raises:
        ValueError: There are choices for stages, which a hypermodel doesn't have.
    """

    def __init__(self, hypermodel: Any, choices: CompressionSpace) -> None:
        super().__init__()
        self.inner: Any = as_hypermodel(hypermodel)
        self.choices = choices
        choices.declare(kt.HyperParameters())  # raises for choices of stages

    def compression(self, hp: kt.HyperParameters) -> Compression:
        """Returns the compression that the hyperparameters describe."""
        return self.choices.of(hp.values)

    def build(self, hp: kt.HyperParameters) -> keras.Model:
        """Declares the choices and builds the model."""
        self.choices.declare(hp)
        return self.inner.build(hp)

    def declare_hyperparameters(self, hp: kt.HyperParameters) -> None:
        """Declares the choices and the hyperparameters that the hypermodel declares in advance."""
        self.choices.declare(hp)
        self.inner.declare_hyperparameters(hp)

    def fit(self, hp: kt.HyperParameters, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        """Trains as the hypermodel does."""
        return self.inner.fit(hp, model, *args, **kwargs)


class SpaceHyperModel(kt.HyperModel):
    """Builds and compiles the architecture that the hyperparameters describe.

    Example:
        >>> import keras_tuner, tfnas
        >>> space = tfnas.MobileNetV2Space((28, 28, 1), 10)
        >>> tuner = keras_tuner.RandomSearch(space.hypermodel(), "val_accuracy")

    Args:
        space: The search space.
        configure: Optional function that compiles the built model, instead of
            `compile_arguments`.
        **compile_arguments: Arguments of `keras.Model.compile`; see :func:`compile_for_search`.

    Raises:
        ValueError: Both `configure` and `compile_arguments` are set.
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
                f"configure excludes compile arguments, got {', '.join(compile_arguments)}"
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

    def compression(self, hp: kt.HyperParameters) -> Compression | None:
        """Returns the compression of the hyperparameters; None: the space has no compressions."""
        if getattr(self.space, "compression", None) is None:
            return None
        return self.architecture(hp).compression

    def build(self, hp: kt.HyperParameters) -> keras.Model:
        """Returns the compiled model that the hyperparameters describe."""
        model = self.space.build(self.architecture(hp))
        if self.configure is not None:
            self.configure(model)
            return model
        return compile_for_search(model, **self.compile_arguments)


def as_hypermodel(hypermodel: Any) -> kt.HyperModel | None:
    """Returns a hypermodel of anything that a tuner searches.

    Args:
        hypermodel: A search space, keras_tuner HyperModel, model-building function or None.

    Raises:
        ValueError: The argument is none of these.
    """
    if isinstance(hypermodel, SearchSpace):
        return SpaceHyperModel(hypermodel)
    if hypermodel is None or isinstance(hypermodel, kt.HyperModel):
        return hypermodel
    if callable(hypermodel):
        return FunctionHyperModel(hypermodel)
    raise ValueError(
        f"hypermodel must be a search space such as tfnas.MobileNetV2Space, its hypermodel(), a "
        f"keras_tuner.HyperModel or a function, got {type(hypermodel).__name__}"
    )
