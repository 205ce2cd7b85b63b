"""Training loops of the user's own, with the callbacks that compress during training.

Masks, clusters and ranges are kept by callbacks, which `fit` calls. A loop with `tf.GradientTape`
has no `fit`: it makes a :class:`CustomLoop` and calls :meth:`CustomLoop.after_step` once after each
optimizer step. The callbacks are then called in the order in which `fit` calls them, so both give
the same weights.

Masks and ties of weights are constraints of the variables, which Keras' optimizers apply in
`apply` and `apply_gradients`. A callback may attach them, or start the rounding of a
:class:`tfnas.QuantizationSchedule`, after a step was compiled by `tf.function`. A step that
:meth:`CustomLoop.function` compiled is then traced again, as in `fit`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfnas.keras_private import set_train_function, train_function

if TYPE_CHECKING:
    from types import TracebackType

    import keras


class CustomLoop:
    """The callbacks of a training loop with `tf.GradientTape`: one call of `after_step` a step.

    :class:`tfnas.PruningCallback`, :class:`tfnas.ClusteringCallback`,
    :class:`tfnas.QuantizationSchedule` and Keras' own callbacks work as in `fit`.

    Example:
        >>> import keras, numpy as np, tensorflow as tf, tfnas
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> optimizer = keras.optimizers.Adam(0.01)
        >>> pruning = tfnas.PruningCallback(tfnas.schedules.polynomial(0.5, end=2))
        >>> arrays = np.ones((32, 8), "float32"), np.ones((32, 4), "float32")
        >>> data = tf.data.Dataset.from_tensor_slices(arrays).batch(8)
        >>> loop = tfnas.CustomLoop(model, [pruning], optimizer=optimizer, epochs=3, steps=4)
        >>> @loop.function
        ... def step(x, y):
        ...     with tf.GradientTape() as tape:
        ...         loss = keras.ops.mean((model(x, training=True) - y) ** 2)
        ...     variables = model.trainable_variables
        ...     optimizer.apply(tape.gradient(loss, variables), variables)
        >>> for epoch in range(3):
        ...     for x, y in data:
        ...         step(x, y)
        ...         loop.after_step()
        >>> int(np.sum(np.asarray(model.layers[0].kernel) == 0))
        16

    Args:
        model: The model in training.
        callbacks: The callbacks, in the order in which `fit` would get them.
        optimizer: The optimizer that the loop applies; None: the one that the model was compiled
            with.
        epochs: Number of epochs of the loop.
        steps: Number of steps of an epoch, counted in calls of :meth:`after_step`.

    Raises:
        ValueError: An argument is outside its rule, or a callback refuses the model.

    References:
        "Writing a training loop from scratch in TensorFlow":
        https://keras.io/guides/writing_a_custom_training_loop_in_tensorflow/
    """

    def __init__(
        self,
        model: keras.Model,
        callbacks: Sequence[keras.callbacks.Callback],
        *,
        epochs: int,
        steps: int,
        optimizer: keras.optimizers.Optimizer | None = None,
    ) -> None:
        import keras

        for name, value in (("epochs", epochs), ("steps", steps)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")
        if not isinstance(model, keras.Model):
            raise ValueError(f"model must be a Keras 3 model, got {model!r}")
        compiled = getattr(model, "optimizer", None)
        if optimizer is None and compiled is None:
            raise ValueError("optimizer must be given for a model that is not compiled, got None")
        if optimizer is not None and not isinstance(optimizer, keras.optimizers.Optimizer):
            raise ValueError(
                f"optimizer must be the keras.optimizers.Optimizer that the loop applies, got "
                f"{optimizer!r}"
            )
        _check_callbacks(callbacks)
        self.model, self.epochs, self.steps = model, epochs, steps
        self._compiled = compiled
        if optimizer is not None:
            model.optimizer = optimizer  # the callbacks read it here
        self._traces = 0
        self._done = 0
        self._ended = False
        self._logs: dict[str, float] = {}
        model.stop_training = False
        self._wait_for_changes()
        self._callbacks = keras.callbacks.CallbackList(
            list(callbacks), add_history=True, model=model, epochs=epochs, steps=steps, verbose=0
        )
        try:
            self._callbacks.on_train_begin()
            self._begin_epoch()
        except BaseException:
            self._restore()
            raise

    @property
    def stopped(self) -> bool:
        """Returns whether the loop is over, or a callback such as EarlyStopping wants it to stop.

        Example:
            >>> import keras, tfnas
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
            >>> model.compile("adam", "mse")
            >>> loop = tfnas.CustomLoop(model, [tfnas.PruningCallback(0.5)], epochs=1, steps=2)
            >>> loop.after_step()
            >>> loop.stopped
            False
        """
        return self._ended or bool(self.model.stop_training)

    def function(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Compiles a training step by `tf.function`; it is traced again after a callback needs it.

        Example:
            >>> import keras, tfnas
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
            >>> model.compile("adam", "mse")
            >>> loop = tfnas.CustomLoop(model, [tfnas.PruningCallback(0.5)], epochs=1, steps=2)
            >>> step = loop.function(lambda x: model(x, training=True))
            >>> step(keras.ops.ones((2, 8))).shape
            TensorShape([2, 4])

        Args:
            step: The step: any function of tensors.

        Returns:
            A function with the same arguments and result.
        """
        import tensorflow as tf

        traced: dict[int, Any] = {}

        @functools.wraps(step)
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._traces not in traced:
                traced.clear()
                traced[self._traces] = tf.function(step)
            return traced[self._traces](*args, **kwargs)

        return call

    def after_step(self, logs: Mapping[str, Any] | None = None) -> None:
        """Calls the callbacks; call it once after each optimizer step.

        After the last step of an epoch it also ends the epoch and begins the next one; after the
        last one of all, the training.

        Example:
            >>> import keras, tfnas
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
            >>> model.compile("adam", "mse")
            >>> loop = tfnas.CustomLoop(model, [tfnas.PruningCallback(0.5)], epochs=1, steps=1)
            >>> loop.after_step({"loss": 0.25})
            >>> loop.stopped, model.history.history
            (True, {'loss': [0.25]})

        Args:
            logs: Values of the step for the callbacks, such as the loss.

        Raises:
            RuntimeError: The loop is over.
            ValueError: `logs` is no dictionary.
        """
        if self._ended:
            raise RuntimeError(
                f"after_step must be called at most epochs x steps = {self.epochs * self.steps} "
                "times, and not after end"
            )
        if not isinstance(logs, Mapping | None):
            raise ValueError(f'logs must be a dictionary such as {{"loss": loss}}, got {logs!r}')
        self._logs = {name: float(value) for name, value in (logs or {}).items()}
        epoch, batch = divmod(self._done, self.steps)
        self._callbacks.on_train_batch_end(batch, self._logs)
        self._done += 1
        if batch + 1 == self.steps:
            self._callbacks.on_epoch_end(epoch, self._logs)
            if epoch + 1 == self.epochs:
                self.end()
                return
            self._begin_epoch()
        else:
            self._begin_step()

    def end(self) -> None:
        """Ends the training, for a loop that stops early; a second call does nothing.

        Example:
            >>> import keras, tfnas
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
            >>> model.compile("adam", "mse")
            >>> with tfnas.CustomLoop(model, [], epochs=5, steps=2) as loop:
            ...     loop.after_step()  # __exit__ calls end
            >>> loop.stopped
            True
        """
        if self._ended:
            return
        self._callbacks.on_train_end(self._logs)
        self._restore()

    def __enter__(self) -> CustomLoop:
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the training."""
        if kind is None:
            self.end()
        elif not self._ended:
            self._restore()

    def _begin_epoch(self) -> None:
        self._callbacks.on_epoch_begin(self._done // self.steps)
        self._begin_step()

    def _begin_step(self) -> None:
        self._callbacks.on_train_batch_begin(self._done % self.steps)
        if train_function(self.model) is not self._mark:  # a callback had it traced again
            self._traces += 1
            self._wait_for_changes()

    def _wait_for_changes(self) -> None:
        """Marks the compiled step of `fit`, which callbacks replace after a change."""
        self._mark: Callable[..., Any] = lambda iterator: None
        set_train_function(self.model, self._mark)

    def _restore(self) -> None:
        self._ended = True
        set_train_function(self.model, None)  # `fit` compiles a new one
        self.model.optimizer = self._compiled


def _check_callbacks(callbacks: Any) -> None:
    """Raises ValueError where these are not some callbacks."""
    import keras

    if not isinstance(callbacks, list | tuple):
        raise ValueError(f"callbacks must be a list of keras.callbacks.Callback, got {callbacks!r}")
    for each in callbacks:
        if not isinstance(each, keras.callbacks.Callback):
            raise ValueError(f"callbacks must hold keras.callbacks.Callback objects, got {each!r}")
