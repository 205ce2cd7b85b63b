"""Keras' training step, traced once: a callback for any `fit`.

`fit` compiles `train_step` with `tf.function`, which traces a function a second time where its
first trace created variables. On TensorFlow, Keras leaves it to that first trace to create the
variables of the optimizer and of the compiled metrics, so every `fit` of a newly compiled model
traces its training step twice. For the small models of a search tracing takes longer than
training. :class:`TraceOnce` has these variables created just before the first step, by the method
with which Keras itself creates them on JAX. What is trained stays the same to the bit.
"""

from __future__ import annotations

from typing import Any

import keras


class TraceOnce(keras.callbacks.Callback):
    """Creates the variables of the optimizer and of the metrics before the first step is traced.

    Put it behind all other callbacks: they may change what is trained before the first step.
    Where a model brings a `train_step` of its own, is not built yet, runs eagerly, or gets data
    other than plain tensors, it does nothing, and Keras traces as ever.

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
        """Keras' hook; before the first epoch other callbacks may have made the step anew."""
        if not getattr(self, "_waiting", False):
            return
        self._waiting = False
        model = self.model
        step = getattr(model, "train_function", None)
        if step is None or not _trains_as_keras_does(model):
            return

        def first_step(iterator: Any) -> Any:
            model.train_function = step
            create_variables(model, getattr(iterator, "element_spec", None))
            return step(iterator)

        model.train_function = first_step


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
        element_spec: Of a data set of batches `x`, (x, y) or (x, y, sample_weight): nested
            `tf.TensorSpec` with shapes (batch, ...).

    Returns:
        Whether it did: False for a specification that is not of plain tensors of known rank.
    """
    import tensorflow as tf

    specs = tf.nest.flatten(element_spec)
    if not all(isinstance(spec, tf.TensorSpec) and spec.shape.rank is not None for spec in specs):
        return False
    batch = keras.tree.map_structure(
        lambda spec: keras.KerasTensor(tuple(spec.shape), spec.dtype.name), element_spec
    )
    model._symbolic_build(data_batch=keras.utils.unpack_x_y_sample_weight(batch))
    return True


def _trains_as_keras_does(model: Any) -> bool:
    """Whether a step is Keras' own, so that it calls what `_symbolic_build` calls."""
    step = getattr(model.train_step, "__func__", None)
    return step is keras.Model.train_step and not model.run_eagerly and model.built
