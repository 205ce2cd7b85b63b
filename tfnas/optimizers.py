"""Muon for convolutional networks: an optimizer for short fine-tuning after compression."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from tfnas.keras_private import momentum_of

if TYPE_CHECKING:
    import tensorflow as tf

# Coefficients of the quintic iteration, which pulls singular values to about 1 in 5 steps.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_EPSILON = 1e-7


@keras.saving.register_keras_serializable("tfnas")
class Muon(keras.optimizers.Adam):
    """Orthogonalizes the momentum of convolution kernels; updates other variables as Adam does.

    A kernel (height, width, inputs, filters) is updated as a matrix
    (height * width * inputs, filters) whose directions all move equally far per step, so that a
    few epochs achieve what takes Adam more. Variables with fewer
    than four dimensions, a single input or a single filter get Adam's update: depthwise kernels,
    one-dimensional convolutions, dense layers (mostly the head), biases and normalizations.

    `momentum`, `ns_steps` and `rms_rate` have the names, meanings, defaults and scale of
    :class:`keras.optimizers.Muon`: on a matrix both take the same step. `rms_rate` gives a step
    the root mean square `rms_rate * learning_rate`, so that learning rates of Adam can be used.
    There are three differences: keras.optimizers.Muon updates two-dimensional variables only,
    and convolution kernels as Adam does; its `rms_rate=None` and `nesterov=False` are not
    supported here; and it decays weights by default (0.004), while here `weight_decay` is None.

    Keras loads a model compiled with it if `tfnas.Muon` was imported before, or with
    `compile=False`; :func:`tfnas.load_model` always does.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> kernel = keras.Variable(np.ones((3, 3, 8, 16)), name="kernel")
        >>> tfnas.Muon(1e-3).apply([np.ones(kernel.shape)], [kernel])
        >>> bool((np.asarray(kernel) < 1).all())
        True

    Args:
        learning_rate: A number or a `keras.optimizers.schedules.LearningRateSchedule`.
        momentum: Nesterov momentum of the kernels' gradients, in [0, 1).
        ns_steps: Number of Newton-Schulz iterations, at least 1.
        rms_rate: Root mean square of a kernel's step, as a multiple of the learning rate.
        **adam: Further arguments of :class:`keras.optimizers.Adam`.

    Raises:
        ValueError: `momentum`, `ns_steps` or `rms_rate` is invalid.

    References:
        Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the
        scale: Liu et al., "Muon is Scalable for LLM Training", 2025, arXiv:2502.16982.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 1e-3,
        *,
        momentum: float = 0.95,
        ns_steps: int = 5,
        rms_rate: float = 0.2,
        name: str = "muon",
        **adam: Any,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum!r}")
        if not (isinstance(ns_steps, int) and ns_steps >= 1):
            raise ValueError(f"ns_steps must be a whole number >= 1, got {ns_steps!r}")
        if not rms_rate > 0:
            raise ValueError(f"rms_rate must be above 0, got {rms_rate!r}")
        super().__init__(learning_rate, name=name, **adam)
        self.momentum, self.ns_steps, self.rms_rate = momentum, ns_steps, rms_rate

    def update_step(
        self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Updates one variable; Keras calls it for each variable in a training step.

        Example:
            >>> import keras, numpy as np, tfnas
            >>> kernel = keras.Variable(np.zeros((3, 3, 2, 4)), name="kernel")
            >>> optimizer = tfnas.Muon(0.1)
            >>> optimizer.build([kernel])
            >>> optimizer.update_step(keras.ops.ones(kernel.shape), kernel, 0.1)
            >>> bool((np.asarray(kernel) < 0).all())
            True

        Args:
            gradient: Its gradient, of its shape.
            variable: The variable, such as a kernel (height, width, inputs, filters).
            learning_rate: The present learning rate, a scalar.

        References:
            :class:`keras.optimizers.Muon`, whose step on a matrix this one equals.
        """
        if not is_matrix(variable):
            super().update_step(gradient, variable, learning_rate)
            return
        gradient = ops.cast(gradient, variable.dtype)
        moment = momentum_of(self, variable)
        self.assign(moment, self.momentum * moment + gradient)
        shape = tuple(variable.shape)
        count = math.prod(shape[:-1])
        rows = ops.reshape(gradient + self.momentum * moment, (count, shape[-1]))
        rows = ops.cast(rows, "float32")  # squares of small numbers underflow in 16 bits
        # An orthogonal matrix of n x m has a mean square of 1 / max(n, m).
        size = self.rms_rate * max(count, shape[-1]) ** 0.5
        step = ops.cast(learning_rate, "float32") * size * orthogonal(rows, self.ns_steps)
        self.assign_sub(variable, ops.cast(ops.reshape(step, shape), variable.dtype))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, from which Keras creates the optimizer again.

        Example:
            >>> import tfnas
            >>> config = tfnas.Muon(1e-3, momentum=0.9).get_config()
            >>> config["momentum"], tfnas.Muon.from_config(config).momentum
            (0.9, 0.9)
        """
        names = ("momentum", "ns_steps", "rms_rate")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def is_matrix(variable: keras.Variable) -> bool:
    """Returns whether a variable is shaped like a kernel with several inputs and filters.

    Args:
        variable: The variable; a kernel has the shape (height, width, inputs, filters).
    """
    shape = tuple(variable.shape)
    return len(shape) >= 4 and min(shape[-2:]) > 1


def orthogonal(matrix: tf.Tensor, iterations: int = 5) -> tf.Tensor:
    """Approximates U V^T of a matrix with the SVD U S V^T by Newton-Schulz iteration.

    Example:
        >>> import numpy as np
        >>> np.round(np.asarray(orthogonal(np.diag([3.0, 3.0]).astype("float32"))), 1)
        array([[1.1, 0. ],
               [0. , 1.1]], dtype=float32)

    Args:
        matrix: A float32 tensor (rows, columns).
        iterations: Number of iterations; after 5, singular values are about 0.7 to 1.2.

    Returns:
        A tensor of the same shape.
    """
    a, b, c = _COEFFICIENTS
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else ops.transpose(matrix)
    x = x / (ops.norm(x) + _EPSILON)  # the spectral norm is then at most 1
    for _ in range(iterations):
        square = ops.matmul(x, ops.transpose(x))
        x = a * x + ops.matmul(b * square + c * ops.matmul(square, square), x)
    return x if wide else ops.transpose(x)
