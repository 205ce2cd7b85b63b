"""Opens blocks: layers of the user's own that hold other layers, as a residual block.

A block is opened as a subclassed model is (:mod:`tfnas.graph.subclassed`), by calling it on
symbolic tensors, where the graph says all that the block does. It stays one layer where

- its class is registered (:func:`tfnas.register_layer`), or computes as the class of Keras that it
  derives from, whose kind techniques know,
- it has weights of its own, adds losses, or reads or makes masks,
- it computes other layers in training, or something else than its graph, for the same random
  numbers, in training or not: so where it passes `training` on as a constant, as a dropout that is
  never off, since a functional model decides that itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.graph.registered_layers import is_custom, registered_layer
from tfnas.graph.subclassed import (
    CannotTrace,
    call_key,
    cause_of,
    input_like,
    kept_trace,
    operations_of,
    trace_of,
)
from tfnas.keras_private import call_takes_training, child_layers, fill_arguments, mask_of

if TYPE_CHECKING:
    import keras

_OPEN_SIZE = 8  # of an example, where a layer takes any
_CLOSE = 1e-4  # largest difference, relative to the largest output
_LEAST = 1e-2  # outputs that are smaller are compared as if one were so large
_MODES = (None, False, True)  # of the argument `training`


def opened_block(node: Any) -> keras.Model | None:
    """Returns a functional model of one call of a block.

    Args:
        node: Keras' record of the call.

    Returns:
        A model that shares the layers inside; None for other layers, and for a block that stays
        one layer.
    """
    layer = node.operation
    if not _is_block(layer) or not _reads_plain_tensors(node):
        return None
    described = dict(node.arguments.kwargs)
    described.pop("training", None)
    key = ("block", *call_key(node, (node.arguments.args, described)))
    try:
        return kept_trace(layer, key, lambda: _opened(node))
    except CannotTrace:
        return None


def _is_block(layer: Any) -> bool:
    import keras

    if not isinstance(layer, keras.layers.Layer) or isinstance(layer, keras.Model):
        return False
    own = is_custom(layer) and not type(layer).__module__.startswith("tfnas.")
    calls_as_keras = type(layer).__call__ is keras.layers.Layer.__call__
    return (
        own
        and calls_as_keras
        and bool(child_layers(layer))
        and registered_layer(layer) is None
        and layer.activity_regularizer is None
    )


def _reads_plain_tensors(node: Any) -> bool:
    """Whether a call has no mask and casts no input: the layers inside see what it sees."""
    layer, tensors = node.operation, node.input_tensors
    if any(mask_of(tensor) is not None for tensor in (*tensors, *node.outputs)):
        return False
    casts = {str(t.dtype) for t in tensors if "float" in str(t.dtype)} - {layer.compute_dtype}
    return bool(tensors) and not (casts and layer.autocast)


def _opened(node: Any) -> keras.Model:
    """The graph of a call; raises CannotTrace where it does not say all that the call does."""
    layer, takes_training = node.operation, call_takes_training(node.operation)

    def arguments(tensors: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        pairs = zip(node.input_tensors, tensors, strict=True)
        args, kwargs = fill_arguments(node, {id(old): new for old, new in pairs})
        kwargs.pop("training", None)
        return args, kwargs

    def call(tensors: Sequence[Any], **mode: bool) -> Any:
        args, kwargs = arguments(tensors)
        return layer.call(*args, **kwargs, **mode)

    def whole(tensors: Sequence[Any], mode: bool | None) -> Any:
        args, kwargs = arguments(tensors)
        return layer(*args, **kwargs, training=mode)

    inputs = _examples(node)
    expected = [_results(layer, functools.partial(whole, mode=mode), inputs) for mode in _MODES]
    opened = trace_of(layer, [input_like(tensor) for tensor in node.input_tensors], call)
    if takes_training:
        symbolic = [input_like(tensor) for tensor in node.input_tensors]
        in_training = trace_of(layer, symbolic, lambda tensors: call(tensors, training=True))
        if operations_of(in_training) != operations_of(opened):
            raise CannotTrace("it computes other layers in training")
    if any(mask_of(tensor) is not None for tensor in opened.outputs):
        raise CannotTrace("a layer inside makes a mask")
    for mode, values in zip(_MODES, expected, strict=True):
        _check_same(values, _results(layer, functools.partial(opened, training=mode), inputs))
    return opened


def _results(
    layer: keras.layers.Layer, call: Callable[[Any], Any], inputs: list[Any]
) -> list[np.ndarray]:
    """The outputs of a call, and what it makes of the weights that no training changes.

    The weights themselves stay as they are, those of random numbers too: two calls draw the same.
    Raises CannotTrace for losses.
    """
    import keras

    try:
        with keras.StatelessScope(collect_losses=True) as scope:
            outputs = keras.tree.flatten(call(inputs))
            state = [v.value for v in layer.non_trainable_variables]
            found = [
                np.asarray(keras.ops.convert_to_numpy(each), np.float64)
                for each in (*outputs, *state)
            ]
    except Exception as error:  # anything that the user's code may raise
        raise CannotTrace(cause_of(error)) from error
    if scope.losses:
        raise CannotTrace("it adds losses")
    return found


def _check_same(expected: list[np.ndarray], found: list[np.ndarray]) -> None:
    """Raises CannotTrace where a graph computes something else than the block."""
    if [each.shape for each in found] != [each.shape for each in expected]:
        raise CannotTrace("its trace has other shapes")
    for old, new in zip(expected, found, strict=True):
        bound = _CLOSE * max(_LEAST, float(np.abs(old).max(initial=0.0)))
        if not np.allclose(old, new, rtol=0, atol=bound, equal_nan=True):
            raise CannotTrace("its trace computes something else")


def _examples(node: Any) -> list[Any]:
    """Two examples of numbers for each input."""
    import keras

    rng, found = np.random.default_rng(0), []
    for tensor in node.input_tensors:
        first, *rest = tensor.shape
        shape = [2 if first is None else first, *(size or _OPEN_SIZE for size in rest)]
        is_float = "float" in str(tensor.dtype)
        values = rng.normal(size=shape) if is_float else rng.integers(0, 2, shape)
        found.append(keras.ops.convert_to_tensor(values, dtype=tensor.dtype))
    return found
