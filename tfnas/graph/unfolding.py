"""Unfolding of layers registered as "open": their inner calls as a functional model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfnas.graph.registered_layers import OPEN, registered_layer
from tfnas.keras_private import attach, attached, fill_arguments, own_variables

if TYPE_CHECKING:
    import keras

_UNFOLDED = "unfolded"


def unfold(node: Any) -> keras.Model | None:
    """Returns a functional model of one call of a layer that is registered as "open".

    A call is unfolded once: the same model is returned for it afterwards.

    Args:
        node: Keras' node of the call.

    Returns:
        A model that shares the layer's inner layers; None for a layer that is not "open".

    Raises:
        ValueError: The layer calls something other than Keras layers and `keras.ops`, or has
            weights outside its inner layers.
    """
    record = registered_layer(node.operation)
    if record is None or record.integer_form != OPEN:
        return None
    found = attached(node, _UNFOLDED)
    if found is None:
        found = _unfolded(node)
        attach(node, _UNFOLDED, found)
    return found


def _unfolded(node: Any) -> keras.Model:
    import keras

    layer = node.operation
    where = f"layer {layer.name!r} of class {type(layer).__name__}, registered as 'open',"
    own = own_variables(layer)
    if own:
        raise ValueError(f"{where} must hold its weights in inner layers, got {own[0].name!r}")
    inputs = [keras.Input(batch_shape=t.shape, dtype=t.dtype) for t in node.input_tensors]
    pairs = zip(node.input_tensors, inputs, strict=True)
    args, kwargs = fill_arguments(node, {id(old): new for old, new in pairs})
    try:
        return keras.Model(inputs, layer.call(*args, **kwargs), name=layer.name)
    except Exception as error:  # anything that the layer's own code may raise
        cause = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{where} must compute with Keras layers and keras.ops alone, got "
            f"{type(error).__name__}: {cause}"
        ) from error
