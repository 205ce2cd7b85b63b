"""Layers that a model's `call` applies to constants, as the embeddings of positions.

Keras records calls of symbolic tensors alone. `self.positions(keras.ops.arange(8))` takes none, so
its result would be a constant of the recorded graph, and the layer's weights would be lost. While a
model is opened, such a constant becomes the output of a :class:`Constant`; the call is recorded.
A constant that is repeated for each example of an open batch, as a causal mask, stays one for all.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tfnas.graph.registered_layers import is_of_keras, register_layer
from tfnas.keras_private import all_layers, backend_functions_replaced, outer_layer_calls


@register_layer(macs=0)
@keras.saving.register_keras_serializable("tfnas")
class Constant(keras.layers.Layer):
    """An array that depends on no input, as a layer's output.

    Args:
        value: The array, without a batch dimension of its own; or nested lists.
        value_dtype: Its dtype, as "int32".
    """

    def __init__(self, value: Any, value_dtype: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.value_dtype = value_dtype
        self.value = np.asarray(value, value_dtype)
        self.supports_masking = True  # it takes masked tensors, and passes no mask on

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """Returns no mask: the array has no steps of an example."""

    def call(self, x: Any) -> Any:
        """Returns the array, whatever `x` is."""
        return keras.ops.convert_to_tensor(self.value)

    def compute_output_spec(self, x: Any) -> keras.KerasTensor:
        """Returns the array's shape and dtype."""
        return keras.KerasTensor(self.value.shape, self.value_dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        config = {"value": self.value.tolist(), "value_dtype": self.value_dtype}
        return {**super().get_config(), **config}


@contextlib.contextmanager
def constants_recorded(model: keras.Model, inputs: Sequence[keras.KerasTensor]) -> Iterator[None]:
    """Records calls of a model's layers that take constants alone, while open, in this thread.

    Args:
        model: The model whose `call` is recorded.
        inputs: Its symbolic inputs; the graph of a constant begins at the first of them.
    """
    own = {id(layer) for layer in all_layers(model)}
    names = (f"constant_{number}" for number in itertools.count(1))

    def call(
        layer: Any, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        leaves = keras.tree.flatten((args, kwargs))
        symbolic = any(isinstance(leaf, keras.KerasTensor) for leaf in leaves)
        if symbolic and _declares_another_output(layer):
            with _output_of_its_call(layer):
                return original(*args, **kwargs)
        if symbolic or id(layer) not in own or not layer.weights or not inputs:
            return original(*args, **kwargs)

        def symbolic_of(leaf: Any) -> Any:
            return _symbolic(leaf, inputs[0], names)

        args, kwargs = keras.tree.map_structure(symbolic_of, (args, kwargs))
        return original(*args, **kwargs)

    functions = {"numpy.broadcast_to": _repeated}
    with outer_layer_calls(call), backend_functions_replaced(functions):
        yield


def _declares_another_output(layer: Any) -> bool:
    """Whether a class of Keras declares the output of a layer that has a `call` of its own."""
    declaring = _first_with(layer, "compute_output_spec")
    is_general = declaring in (keras.layers.Layer, keras.Operation)
    return is_of_keras(declaring) and not is_general and not is_of_keras(_first_with(layer, "call"))


def _first_with(layer: Any, name: str) -> type:
    """The class that has the method of a layer."""
    return next(base for base in type(layer).__mro__ if name in vars(base))


@contextlib.contextmanager
def _output_of_its_call(layer: Any) -> Iterator[None]:
    """Lets a layer find the shape of its output by its `call`, which may take other arguments."""
    by_call = functools.partial(keras.Operation.compute_output_spec, layer)
    object.__setattr__(layer, "compute_output_spec", by_call)
    try:
        yield
    finally:
        object.__delattr__(layer, "compute_output_spec")


def _repeated(x: Any, shape: Sequence[int | None]) -> Any:
    """Repeats an array to a shape, but not along an open batch: one for all examples is enough."""
    import tensorflow as tf

    open_batch = isinstance(shape, list | tuple) and len(shape) > 0 and shape[0] is None
    return tf.broadcast_to(x, (1, *shape[1:]) if open_batch else shape)


def _symbolic(leaf: Any, source: keras.KerasTensor, names: Iterator[str]) -> Any:
    """An array as the output of a :class:`Constant`; anything else unchanged."""
    if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
        return leaf
    value = keras.ops.convert_to_numpy(leaf)
    return Constant(value, str(value.dtype), name=next(names))(source)
