"""Reads the graph of a functional model of Keras 3 or tf_keras into one common form."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from tfnas import keras_private
from tfnas.legacy import tf_keras_private


@dataclasses.dataclass(frozen=True)
class GraphStep:
    """One use of a layer.

    Args:
        layer: The layer, nested model or operation.
        args: Positional arguments of the call, with symbolic tensors.
        kwargs: Keyword arguments of the call.
        outputs: Symbolic output tensors.
    """

    layer: Any
    args: Any
    kwargs: dict[str, Any]
    outputs: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Graph:
    """The graph of a functional model.

    Args:
        inputs: Symbolic inputs, in the structure of the model's argument.
        outputs: Symbolic outputs, in the structure of the model's result.
        steps: Uses of layers in the order of execution.
    """

    inputs: Any
    outputs: Any
    steps: tuple[GraphStep, ...]


def read_keras(model: Any) -> Graph | None:
    """Returns the graph of a Keras 3 model or layer; None where it has none.

    Args:
        model: A model or layer.
    """
    functional = keras_private.recorded_graph(model)
    if functional is None:
        return None
    steps = (
        GraphStep(node.operation, node.arguments.args, node.arguments.kwargs, tuple(node.outputs))
        for node in keras_private.nodes(functional)
    )
    inputs = keras_private.input_structure(functional)
    return Graph(inputs, keras_private.output_structure(functional), tuple(steps))


def read_tf_keras(model: Any) -> Graph | None:
    """Returns the graph of a tf_keras model or layer; None where it has none.

    Args:
        model: A model or layer.
    """
    if not tf_keras_private.is_functional(model):
        return None
    steps = (
        GraphStep(node.layer, node.call_args, node.call_kwargs, tuple(flatten(node.outputs)))
        for node in tf_keras_private.nodes(model)
    )
    inputs = tf_keras_private.input_structure(model)
    return Graph(inputs, tf_keras_private.output_structure(model), tuple(steps))


def map_structure(structure: Any, function: Callable[[Any], Any]) -> Any:
    """Applies a function to every leaf of nested lists, tuples and dicts.

    Example:
        >>> map_structure([1, {"a": (2, 3)}], lambda x: -x)
        [-1, {'a': (-2, -3)}]

    Args:
        structure: The structure.
        function: Leaf -> new leaf.

    Returns:
        The same structure of new leaves.
    """
    if isinstance(structure, dict):
        return {key: map_structure(value, function) for key, value in structure.items()}
    if isinstance(structure, list | tuple):
        kind = tuple if isinstance(structure, tuple) else list
        return kind(map_structure(value, function) for value in structure)
    return function(structure)


def flatten(structure: Any) -> list[Any]:
    """Returns the leaves of nested lists, tuples and dicts; dicts in the order of sorted keys.

    Example:
        >>> flatten([1, {"b": 2, "a": (3,)}])
        [1, 3, 2]

    Args:
        structure: The structure.
    """
    if isinstance(structure, dict):
        return [leaf for key in sorted(structure) for leaf in flatten(structure[key])]
    if isinstance(structure, list | tuple):
        return [leaf for value in structure for leaf in flatten(value)]
    return [structure]
