"""Opens models that have no recorded graph, by calling them on symbolic tensors.

A subclassed model is Python code. Where its `call` computes with Keras layers and `keras.ops`
alone, calling it on symbolic tensors records a graph of the same layers: the opened model shares
every variable with the original. Each result is kept as long as the model is alive, since each call
on symbolic tensors leaves a record in the layers.
"""

from __future__ import annotations

import pathlib
import re
import textwrap
import traceback
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.keras_private import (
    call_takes_training,
    fill_arguments,
    followed_graph,
    nodes,
    own_variables,
)

if TYPE_CHECKING:
    import keras

_OF_LIBRARIES = re.compile(r"[/\\](site|dist)-packages[/\\]|__autograph_generated|^<")
_PACKAGE = str(pathlib.Path(__file__).parent.parent)
# model -> (key of the call -> its graph, or the reason why there is none)
_OPENED: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()


class CannotTrace(ValueError):
    """A model's `call` can't be recorded as a graph of layers; the message says why."""


def is_subclassed(operation: object) -> bool:
    """Whether an object is a model whose `call` is its own, so that no graph describes it.

    Example:
        >>> import keras
        >>> is_subclassed(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
        False

    Args:
        operation: A model, layer or operation.
    """
    import keras

    if not isinstance(operation, keras.Model) or followed_graph(operation) is not None:
        return False
    return not isinstance(operation, keras.Sequential)


def opened_call(node: Any) -> keras.Model | None:
    """Returns a functional model of one call of a subclassed model inside another model.

    Args:
        node: Keras' record of the call.

    Returns:
        A model that shares its layers; None for other layers, and for a model that can't be traced.
    """
    model = node.operation
    if not is_subclassed(model):
        return None
    given = node.input_tensors
    # The training argument of the call goes to the layers inside in another way.
    described = {name: value for name, value in node.arguments.kwargs.items() if name != "training"}
    key = call_key(node, described)

    def call(tensors: Sequence[Any]) -> Any:
        pairs = zip(given, tensors, strict=True)
        args, kwargs = fill_arguments(node, {id(old): new for old, new in pairs})
        kwargs.pop("training", None)
        return model.call(*args, **kwargs)

    try:
        inputs = [input_like(tensor) for tensor in given]
        return kept_trace(model, key, lambda: trace_of(model, inputs, call))
    except CannotTrace:
        return None


def traced(model: keras.Model, inputs: Any) -> keras.Model:
    """Returns a functional model of a subclassed one, with the same layers and variables.

    Args:
        model: A subclassed model.
        inputs: Symbolic inputs in the structure that its `call` takes.

    Raises:
        CannotTrace: Its `call` can't be recorded, or uses weights outside of its layers.
    """
    import keras

    key = ("model", repr(keras.tree.map_structure(_described, inputs)))

    def call(tensors: Sequence[Any]) -> Any:
        return model.call(keras.tree.pack_sequence_as(inputs, list(tensors)))

    flat = keras.tree.flatten(inputs)
    return kept_trace(model, key, lambda: trace_of(model, flat, call, structure=inputs))


def trains_otherwise(model: keras.Model, opened: keras.Model) -> bool:
    """Whether the `call` of a subclassed model branches on its argument `training`.

    Args:
        model: The subclassed model.
        opened: Its functional form, recorded without the argument.
    """
    import keras

    from tfnas.graph.constant_calls import constants_recorded

    if not call_takes_training(model):
        return False
    inputs = [input_like(tensor) for tensor in opened.inputs]
    packed = keras.tree.pack_sequence_as(opened.input, inputs)
    try:
        with constants_recorded(model, inputs):
            outputs = model.call(packed, training=True)
        training = keras.Model(packed, outputs)
    except Exception:  # anything that the user's code may raise in its other branch
        return True
    return operations_of(training) != operations_of(opened)


def operations_of(functional: keras.Model) -> list[str]:
    """Returns the layers that a graph calls, by their names, and its operations, by their kinds.

    Args:
        functional: The graph.
    """
    import keras

    return [
        each.operation.name
        if isinstance(each.operation, keras.layers.Layer)
        else type(each.operation).__name__
        for each in nodes(functional)
    ]


def kept_trace(
    layer: keras.layers.Layer, key: Any, trace: Callable[[], keras.Model]
) -> keras.Model:
    """Returns what was traced before for the same call and the same weights, or traces it.

    Args:
        layer: The model or layer that is traced.
        key: What tells its calls apart.
        trace: Returns the graph of the call.

    Raises:
        CannotTrace: It can't be traced, now or before.
    """
    key = (*key, tuple(id(v) for v in layer.variables))
    known = _OPENED.setdefault(layer, {})
    if key not in known or not known[key]:
        known.clear() if len(known) > 8 else None
        try:
            known[key] = trace()
        except CannotTrace as error:
            known[key] = error
    found = known[key]
    if isinstance(found, CannotTrace):
        raise found
    opened: keras.Model = found
    return opened


def trace_of(
    model: keras.layers.Layer,
    inputs: list[Any],
    call: Callable[[Sequence[Any]], Any],
    structure: Any = None,
) -> keras.Model:
    """Returns the graph of a call.

    Args:
        model: The model or layer whose code is called.
        inputs: Symbolic inputs, in a flat list.
        call: Takes them, and calls the code.
        structure: The inputs in the structure of the graph; None: the list.

    Raises:
        CannotTrace: The call can't be recorded, or uses weights outside of its layers.
    """
    import keras

    from tfnas.graph.constant_calls import constants_recorded

    own = [variable.name for variable in own_variables(model)]
    if own:
        raise CannotTrace(f"it has weights outside of its layers, {own[0]!r}: give each a layer")
    try:
        with constants_recorded(model, inputs):
            outputs = call(inputs)
        opened = keras.Model(inputs if structure is None else structure, outputs, name=model.name)
    except Exception as error:  # anything that the user's code may raise
        raise CannotTrace(cause_of(error)) from error
    _leave_the_batch_open(opened)
    _check_constants(model, opened)
    if name := _weight_in_a_constant(model, opened, call):
        raise CannotTrace(
            f"{name!r} is used by a call that takes none of the model's inputs, as of positions: "
            "let a layer of your own take the input and add it"
        )
    return opened


def _leave_the_batch_open(opened: keras.Model) -> None:
    """Mends `keras.ops.reshape(x, (keras.ops.shape(x)[0], ...))`, recorded with a size of None."""
    for node in nodes(opened):
        sizes = getattr(node.operation, "newshape", None)
        if isinstance(sizes, list | tuple) and list(sizes).count(None) == 1 and -1 not in sizes:
            node.operation.newshape = tuple(-1 if size is None else size for size in sizes)


def cause_of(error: Exception) -> str:
    """Returns an error of a user's `call` in one line, with the line of the user's that raised it.

    Args:
        error: The error.
    """
    lines = [line for line in str(error).splitlines() if not line.startswith("Exception encount")]
    text = " ".join(" ".join(lines).split())
    if "KerasTensor cannot be used as input to a TensorFlow function" in text:
        what = "it calls a function of TensorFlow, keras.ops has the same"
    else:
        what = f"{type(error).__name__}: {textwrap.shorten(text, 300, placeholder=' ...')}"
    own = [
        f"{what} ({pathlib.Path(frame.filename).name}, line {frame.lineno})"
        for frame in traceback.extract_tb(error.__traceback__)
        if not _OF_LIBRARIES.search(frame.filename) and not frame.filename.startswith(_PACKAGE)
    ]
    return own[-1] if own else what


def _check_constants(model: keras.layers.Layer, opened: keras.Model) -> None:
    """Refuses a graph that holds a layer's weight as a constant, as a tied kernel would be."""
    import keras

    weights = [np.sort(np.ravel(keras.ops.convert_to_numpy(v))) for v in model.weights]
    for node in nodes(opened):
        arguments = (node.arguments.args, node.arguments.kwargs)
        for leaf in keras.tree.flatten(arguments):
            if isinstance(leaf, keras.KerasTensor) or not hasattr(leaf, "shape"):
                continue
            values = np.sort(np.ravel(keras.ops.convert_to_numpy(leaf)))
            is_weight = isinstance(leaf, keras.Variable) or any(
                values.size > 1 and np.array_equal(values, weight) for weight in weights
            )
            if is_weight:
                raise CannotTrace(
                    f"{node.operation.name!r} uses the weight of a layer without calling the layer"
                )


def _weight_in_a_constant(
    model: keras.layers.Layer, opened: keras.Model, call: Callable[[Sequence[Any]], Any]
) -> str | None:
    """A weight that a graph lacks, and that changes the outputs: they hold it as a constant."""
    import keras

    kept = {id(variable) for variable in opened.weights}
    missing = [v for v in model.weights if id(v) not in kept and "float" in str(v.dtype)]
    sizes = [(2, *tensor.shape[1:]) for tensor in opened.inputs]
    unknown = any(None in size for size in sizes) or any(t.dtype == "string" for t in opened.inputs)
    if not missing or unknown:
        return None
    pairs = zip(sizes, opened.inputs, strict=True)
    inputs = [keras.ops.zeros(size, tensor.dtype) for size, tensor in pairs]
    rng = np.random.default_rng(0)
    others = [(v, v + rng.normal(size=v.shape).astype(str(v.dtype))) for v in missing]
    try:
        expected = keras.tree.flatten(call(inputs))
        with keras.StatelessScope(state_mapping=others):
            found = keras.tree.flatten(call(inputs))
    except Exception:  # anything that the user's code may raise for zeros
        return None
    same = [
        np.array_equal(*map(keras.ops.convert_to_numpy, pair))
        for pair in zip(expected, found, strict=True)
    ]
    return None if all(same) else str(missing[0].path)


def input_like(tensor: Any) -> Any:
    """Returns a symbolic input of the shape and dtype of a tensor.

    Args:
        tensor: The tensor.
    """
    import keras

    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype)


def call_key(node: Any, described: Any) -> tuple[Any, ...]:
    """Returns what tells a recorded call of a layer apart from others.

    Args:
        node: Keras' record of the call.
        described: Its arguments beside the tensors.
    """
    import keras

    tensors = tuple(_described(tensor) for tensor in node.input_tensors)
    return "call", tensors, repr(keras.tree.map_structure(_plain, described))


def _described(tensor: Any) -> tuple[Any, ...]:
    return tuple(tensor.shape), str(tensor.dtype)


def _plain(value: Any) -> Any:
    return tuple(value.shape) if hasattr(value, "shape") else value
