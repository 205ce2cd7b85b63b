"""A callback that makes Keras trace the training step once instead of twice, and then frees it.

`fit` compiles `train_step` with `tf.function`, which traces a function a second time where its
first trace created variables. On TensorFlow, Keras leaves it to that first trace to create the
variables of the optimizer and of the compiled metrics, so every `fit` of a newly compiled model
traces its training step twice. For the small models of a search tracing takes longer than
training. :class:`TraceOnce` creates these variables just before the first step, with the method
that Keras itself uses on JAX. The trained weights are the same, bit by bit.

TensorFlow keeps the graph of a training step for good, 10 MB and more for a network of a search.
After the training the callback lets go of it.
"""

from __future__ import annotations

from typing import Any

import keras

from tfnas.keras_private import (
    create_training_variables,
    forget_step_gradients,
    set_train_function,
    train_function,
)


class TraceOnce(keras.callbacks.Callback):
    """Creates variables before the first step is traced, and frees the step after the training.

    Put it last in the list of callbacks: the others may still change the model before the first
    step. It does nothing where a model overrides `train_step`, is not built yet, runs eagerly, or
    gets data other than plain tensors; Keras then traces as usual.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> model.compile("adam", "mse", metrics=["mae"])
        >>> x, y = np.zeros((8, 4)), np.zeros((8, 2))
        >>> history = model.fit(x, y, verbose=0, callbacks=[TraceOnce()])
        >>> sorted(history.history)
        ['loss', 'mae']
    """

    def on_train_begin(self, logs: Any = None) -> None:
        """Keras' hook."""
        self._waiting = True

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Keras' hook. Not earlier, since other callbacks may create a new step on train begin."""
        if not getattr(self, "_waiting", False):
            return
        self._waiting = False
        model = self.model
        step = train_function(model)
        if step is None or not _has_keras_train_step(model):
            return

        def first_step(iterator: Any) -> Any:
            set_train_function(model, step)
            create_variables(model, getattr(iterator, "element_spec", None))
            return step(iterator)

        set_train_function(model, first_step)

    def on_train_end(self, logs: Any = None) -> None:
        """Keras' hook."""
        forget_step_gradients()


def create_variables(model: keras.Model, element_spec: Any) -> bool:
    """Creates the variables that a compiled model's first training step would create.

    Example:
        >>> import keras, tensorflow as tf
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> model.compile("adam", "mse")
        >>> create_variables(model, (tf.TensorSpec((None, 4)), tf.TensorSpec((None, 2))))
        True
        >>> model.optimizer.built
        True

    Args:
        model: A built and compiled model.
        element_spec: The `element_spec` of a `tf.data.Dataset` of batches `x`, (x, y) or
            (x, y, sample_weight): nested `tf.TensorSpec` with shapes (batch, ...).

    Returns:
        True if the variables were created; False if a specification is not of a plain tensor of
        known rank.
    """
    import tensorflow as tf

    specs = tf.nest.flatten(element_spec)
    if not all(isinstance(spec, tf.TensorSpec) and spec.shape.rank is not None for spec in specs):
        return False
    batch = keras.tree.map_structure(
        lambda spec: keras.KerasTensor(tuple(spec.shape), spec.dtype.name), element_spec
    )
    create_training_variables(model, keras.utils.unpack_x_y_sample_weight(batch))
    return True


def _has_keras_train_step(model: Any) -> bool:
    """Whether the training step is Keras' own, which uses the variables created beforehand."""
    step = getattr(model.train_step, "__func__", None)
    return step is keras.Model.train_step and not model.run_eagerly and model.built
