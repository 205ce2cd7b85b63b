"""Wrappers of layers for sequences, opened into the layers inside.

A Bidirectional becomes two recurrent layers, of which the outputs of the second are reversed, and
a layer that joins them. A TimeDistributed becomes its layer, or the layers of the model inside,
called with all steps as examples.
Reversed places are a slice with steps of -1, parts of a split are slices, and rolled places are two
slices that change places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tfnas.graph.functional import Call, LayerCopies
from tfnas.keras_private import mask_of, recorded_graph
from tfnas.quantization.activation_calls import Apply, opened_calls
from tfnas.quantization.recurrent_cells import KINDS, has_mask, initial_states

Parts = Callable[[Any], list[Any]]
_JOINS = {"sum": "Add", "mul": "Multiply", "concat": "Concatenate", "ave": "Add"}
_MOST_AXES = 5
_IN_PLACE = ("Dense", "Activation", "ReLU", "Dropout")


def opened_wrapper(
    call: Call, tensors: list[Any], copies: LayerCopies, parts_of: Parts, apply: Apply
) -> list[Any] | None:
    """Returns the outputs of a Bidirectional or TimeDistributed, by the layers inside of it.

    Args:
        call: Any call.
        tensors: The new tensors of its inputs.
        copies: Copies of layers.
        parts_of: Returns the layers that compute together what a layer does.
        apply: Returns the outputs of a call inside of a model.

    Returns:
        The outputs; None for other calls, for layers with stateful=True, and for a TimeDistributed
        with a mask, or of a model that can't be opened.
    """
    if call.kind == "Bidirectional":
        return _both_directions(call, tensors, copies)
    masked = mask_of(call.node.input_tensors[0]) is not None
    if call.kind == "TimeDistributed" and len(call.inputs) == 1 and not masked:
        return _all_steps(call, tensors[0], parts_of, apply)
    return None


def reversed_places(call: Call, tensors: list[Any]) -> list[Any] | None:
    """Returns the output of a `keras.ops.flip` as a slice with steps of -1.

    The converter leaves REVERSE_V2 in floats before an operator with a range of its own, as ADD;
    a slice has the steps of its input wherever it stands.

    Args:
        call: Any call.
        tensors: The new tensors of its inputs.

    Returns:
        The output; None for other calls, for those that reverse the batch, and where there are
        more axes than STRIDED_SLICE takes.
    """
    if call.kind != "Flip" or call.operation.axis is None:
        return None
    rank = len(tensors[0].shape)
    axes = [axis % rank for axis in keras.tree.flatten(call.operation.axis)]
    if 0 in axes or rank > _MOST_AXES:
        return None
    return [_reversed(tensors[0], axes)]


def sliced_parts(call: Call, tensors: list[Any]) -> list[Any] | None:
    """Returns the outputs of a `keras.ops.split` or `unstack` as slices.

    The converter leaves a SPLIT in floats where nothing reads one of its outputs, and gives all of
    them one range. A slice has the steps of its input.

    Args:
        call: Any call.
        tensors: The new tensors of its inputs.

    Returns:
        The outputs; None for other calls, for those along an axis of open size, and where there
        are more axes than STRIDED_SLICE takes.
    """
    if call.kind not in ("Split", "Unstack"):
        return None
    rank = len(tensors[0].shape)
    axis = call.operation.axis % rank
    before = (slice(None),) * axis
    if rank > _MOST_AXES or tensors[0].shape[axis] is None:
        return None
    if call.kind == "Unstack":
        return [tensors[0][(*before, place)] for place in range(len(call.outputs))]
    ends = np.cumsum([output.shape[axis] for output in call.outputs]).tolist()
    if ends[-1] != tensors[0].shape[axis]:  # places of split that are not in order
        return None
    starts = [0, *ends[:-1]]
    pairs = zip(starts, ends, strict=True)
    return [tensors[0][(*before, slice(start, end))] for start, end in pairs]


def rolled_places(call: Call, tensors: list[Any], copies: LayerCopies) -> list[Any] | None:
    """Returns the output of a `keras.ops.roll` as slices that are joined in another order.

    Args:
        call: Any call.
        tensors: The new tensors of its inputs.
        copies: Names the layers that join.

    Returns:
        The output; None for other calls, and for those along an axis of open size.
    """
    if call.kind != "Roll" or call.operation.axis is None:
        return None
    x, operation = tensors[0], call.operation
    axes, shifts = map(keras.tree.flatten, (operation.axis, operation.shift))
    if len(x.shape) > _MOST_AXES or any(x.shape[axis] is None for axis in axes):
        return None
    for axis, shift in zip(axes, shifts, strict=True):
        if first := -shift % x.shape[axis]:
            before = (slice(None),) * (axis % len(x.shape))
            parts = [x[(*before, slice(first, None))], x[(*before, slice(None, first))]]
            name = copies.unique(operation.name)
            x = keras.layers.Concatenate(axis=axis, name=name)(parts)
    return [x]


def _reversed(tensor: Any, axes: list[int]) -> Any:
    steps = [-1 if axis in axes else None for axis in range(len(tensor.shape))]
    return tensor[tuple(slice(None, None, step) for step in steps)]


def _both_directions(call: Call, tensors: list[Any], copies: LayerCopies) -> list[Any] | None:
    wrapper = call.operation
    layers = wrapper.forward_layer, wrapper.backward_layer
    if any(type(layer).__name__ not in KINDS for layer in layers):
        return None
    states, mask = initial_states(call, tensors), {"mask": tensors[-1]} if has_mask(call) else {}
    half = len(states) // 2
    if wrapper.stateful or len(tensors) != 1 + len(states) + len(mask):
        return None
    starts = [{"initial_state": part} for part in (states[:half], states[half:]) if part]
    found = [
        _steps(layer, tensors[0], mask, start, copies)
        for layer, start in zip(layers, starts or [{}, {}], strict=True)
    ]
    (first, *states), (second, *more) = found
    if wrapper.return_sequences:
        second = _reversed(second, [1])
    return [*_joined(wrapper, [first, second], copies), *states, *more]


def _joined(wrapper: Any, outputs: list[Any], copies: LayerCopies) -> list[Any]:
    """The outputs of both directions as a Bidirectional merges them."""
    if wrapper.merge_mode is None:
        return outputs
    join = getattr(keras.layers, _JOINS[wrapper.merge_mode])
    joined = join(name=copies.unique(wrapper.name))(outputs)
    if wrapper.merge_mode == "ave":
        joined = keras.layers.Rescaling(0.5, name=copies.unique(f"{wrapper.name}_half"))(joined)
    return [joined]


def zeroed_steps(call: Call, tensors: list[Any], copies: LayerCopies) -> list[Any] | None:
    """Returns the outputs of a recurrent layer whose outputs are 0 where a mask leaves steps out.

    Args:
        call: Any call.
        tensors: The new tensors of its inputs.
        copies: Copies of layers.

    Returns:
        The output, of a layer that keeps its state there, and of a choice; None for other calls.
    """
    if call.kind not in KINDS or not has_mask(call) or not _zeroes(call.operation):
        return None
    args, kwargs = call.arguments(tensors)
    return [_zeroed(call.operation, args, kwargs, copies)]


def _zeroes(layer: Any) -> bool:
    states = layer.return_state or layer.stateful
    return layer.zero_output_for_mask and layer.return_sequences and not states


def _steps(
    layer: Any, x: Any, mask: dict[str, Any], start: dict[str, Any], copies: LayerCopies
) -> list[Any]:
    """The output of a recurrent layer, and the states that it returns.

    Args:
        layer: The layer.
        x: Its input.
        mask: Its mask, by that name; {}: it has none.
        start: Its initial state, by that name; {}: it has none.
        copies: Copies of layers.
    """
    if mask and _zeroes(layer):
        return [_zeroed(layer, [x], {**mask, **start}, copies)]
    return list(keras.tree.flatten(copies.of(layer)(x, **mask, **start)))


def _zeroed(layer: Any, args: Sequence[Any], kwargs: dict[str, Any], copies: LayerCopies) -> Any:
    """The outputs of a call with a mask; each such call of a layer, which has one copy."""
    copy = copies.of(layer)
    copy.zero_output_for_mask = False
    output, mask = copy(*args, **kwargs), kwargs["mask"]
    if layer.go_backwards:
        mask = _reversed(mask, [1])
    return keras.ops.where(mask[:, :, None], output, 0.0)


def _all_steps(call: Call, x: Any, parts_of: Parts, apply: Apply) -> list[Any] | None:
    inner = call.operation.layer
    is_model = isinstance(inner, keras.Model)
    if None in x.shape[1:] or (is_model and recorded_graph(inner) is None):
        return None
    in_place = type(inner).__name__ in _IN_PLACE
    tensor = x if in_place else keras.ops.reshape(x, (-1, *x.shape[2:]))
    if is_model:
        (tensor,) = opened_calls(inner, call.name, tensor, apply)
    else:
        for part in parts_of(inner):
            tensor = part(tensor)
    if in_place:
        return [tensor]
    return [keras.ops.reshape(tensor, (-1, x.shape[1], *tensor.shape[1:]))]
