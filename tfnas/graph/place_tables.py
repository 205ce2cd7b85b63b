"""Layers that read the sizes of their input alone, as a table of the embeddings of positions.

Their output is a constant once the model is trained, so they cost no multiply-accumulates, and are
rounded as any output in an integer file. That is shown, not guessed: given a tensor without
numbers, such a layer returns an array.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from tfnas.graph.registered_layers import is_of_keras, registered_layer
from tfnas.graph.subclassed import call_key
from tfnas.keras_private import child_layers, own_variables

if TYPE_CHECKING:
    from tfnas.graph.functional import Call

# layer -> (what is known of its call -> whether it reads sizes alone)
_KNOWN: weakref.WeakKeyDictionary[Any, dict[Any, bool]] = weakref.WeakKeyDictionary()


def reads_sizes_alone(call: Call) -> bool:
    """Whether a call of a layer of the user's own makes the same numbers of all inputs of a size.

    Args:
        call: The call. Where a size is open beside the batch, nothing is known of it.
    """
    import keras

    layer = call.operation
    if call.node is None or not isinstance(layer, keras.layers.Layer):
        return False
    if is_of_keras(type(layer)) or registered_layer(layer) is not None:
        return False
    if child_layers(layer) or not own_variables(layer):
        return False
    sizes = [size for value in call.inputs for size in value.shape[1:]]
    key = call_key(call.node, (call.node.arguments.args, call.node.arguments.kwargs))
    known = _KNOWN.setdefault(layer, {})
    if key not in known:
        known[key] = None not in sizes and _makes_arrays(call)
    return known[key]


def _makes_arrays(call: Call) -> bool:
    import keras

    tensors = [keras.KerasTensor((1, *value.shape[1:]), value.dtype) for value in call.inputs]
    args, kwargs = call.arguments(tensors)
    try:
        with keras.StatelessScope():
            found = keras.tree.flatten(call.operation.call(*args, **kwargs))
    except Exception:  # anything that the user's code may raise for a tensor without numbers
        return False
    return bool(found) and all(keras.ops.is_tensor(each) for each in found)
