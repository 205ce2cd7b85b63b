"""Gradients of the loss with respect to kernels, for criteria that depend on data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tfnas.data.reading import batches, length
from tfnas.keras_private import all_layers

if TYPE_CHECKING:
    import keras


class Weight(Protocol):
    """Any object with a Keras variable that gradients can be computed for, such as a kernel."""

    @property
    def name(self) -> str:
        """Returns the name in error messages."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns the variable's shape."""

    @property
    def variable(self) -> keras.Variable:
        """Returns the Keras variable."""


_HALF_PRECISION_SCALE = 2.0**15  # initial scale of Keras' LossScaleOptimizer


class LossGradients:
    """Computes abs(dL/dw) of kernels, averaged over the examples of all batches.

    The model runs in inference mode (moving statistics, no dropout) and is not changed. Create
    one object per model, since the gradient function is traced at the first call.

    Args:
        model: A built Keras model.
        kernels: Its kernels.
        loss: A Keras loss, or its name; None: the loss that the model is compiled with.

    Raises:
        ValueError: `loss` is None and the model is not compiled.
    """

    def __init__(
        self,
        model: keras.Model,
        kernels: Sequence[Weight],
        loss: str | Callable[..., Any] | None = None,
    ) -> None:
        self._kernels = list(kernels)
        self._model = model
        self._function = _gradient_function(model, [k.variable for k in kernels], loss)
        half = any(layer.compute_dtype == "float16" for layer in all_layers(model))
        self._first_scale = _HALF_PRECISION_SCALE if half else 1.0

    def __call__(self, data: Any) -> list[np.ndarray]:
        """Returns the mean absolute gradient of each kernel, of the kernel's shape.

        Args:
            data: Inputs and targets: a tuple (x, y), a `tf.data.Dataset` or a
                `keras.utils.PyDataset`.

        Raises:
            ValueError: The data has no targets or no examples, or a gradient is not finite.
        """
        totals = [np.zeros(kernel.shape, np.float64) for kernel in self._kernels]
        examples = 0
        for count, gradients in self.each(data):
            examples += count
            for total, gradient in zip(totals, gradients, strict=True):
                total += count * np.abs(gradient)
        return [total / examples for total in totals]

    def each(self, data: Any) -> Iterator[tuple[int, list[np.ndarray]]]:
        """Yields (number of examples, dL/dw of each kernel) of each batch.

        Args:
            data: As for `__call__`.

        Raises:
            ValueError: The data has no targets or no examples, or a gradient is not finite.
        """
        metrics = [(v, v.numpy()) for v in getattr(self._model, "metrics_variables", ())]
        examples = 0
        for x, y in batches(data):
            if y is None:
                raise ValueError("data must hold inputs and targets, got inputs alone")
            count = length(x, "data")
            examples += count
            yield count, self._finite(x, y)
        for variable, value in metrics:  # compute_loss updates metrics of the model
            variable.assign(value)
        if not examples:
            raise ValueError("data must hold at least one example, got none")

    def _finite(self, x: Any, y: Any) -> list[np.ndarray]:
        """The gradients of a batch; the loss scale is lowered if half precision overflows."""
        scale = self._first_scale
        while True:
            found = [np.asarray(g) for g in self._function(x, y, np.float32(scale))]
            not_finite = [
                kernel.name
                for kernel, gradient in zip(self._kernels, found, strict=True)
                if not np.isfinite(gradient).all()
            ]
            if not not_finite:
                return found
            if scale == 1.0:
                raise ValueError(
                    f"gradients must be finite, got NaN or inf for {not_finite[0]!r} "
                    f"and {len(not_finite) - 1} more"
                )
            scale = max(1.0, scale / 32)


def _gradient_function(model: Any, variables: list[Any], loss: Any) -> Callable[..., list[Any]]:
    import tensorflow as tf

    value = _loss_function(model, loss)

    # As in `fit`, no Python is rewritten: that took seconds for the loss of a distiller.
    @tf.function(autograph=False, reduce_retracing=True)
    def gradients(x: Any, y: Any, scale: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            result = value(x, y, model(x, training=False))
            scaled = tf.cast(result, tf.float32) * scale
        found = tape.gradient(scaled, [v.value for v in variables])
        return [
            tf.zeros(v.shape, v.dtype)
            if g is None
            else tf.convert_to_tensor(g) / tf.cast(scale, g.dtype)
            for v, g in zip(variables, found, strict=True)
        ]

    return gradients


def _loss_function(model: Any, loss: Any) -> Callable[[Any, Any, Any], Any]:
    import keras

    if loss is not None:
        if not (isinstance(loss, str) or callable(loss)):
            raise ValueError(
                f"loss must be a name or a function, got {loss!r} for {model.name!r}: compile the "
                "model with a loss for each output, and leave the argument out"
            )
        function = keras.losses.get(loss)
        return lambda x, y, prediction: keras.ops.mean(function(y, prediction))
    if not getattr(model, "compiled", False):
        raise ValueError(
            f"loss must be set if the model is not compiled, got None for {model.name!r}"
        )
    return lambda x, y, prediction: model.compute_loss(x, y, prediction)
