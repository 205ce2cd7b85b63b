"""Reads the graph of a functional model of Keras 3 or tf_keras into one common form."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any


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
    inner = getattr(model, "_functional", None)  # a built Sequential model has one
    functional = model if hasattr(model, "_nodes_by_depth") else inner
    if functional is None or not hasattr(functional, "_nodes_by_depth"):
        return None
    steps = (
        GraphStep(node.operation, node.arguments.args, node.arguments.kwargs, tuple(node.outputs))
        for node in _nodes(functional)
    )
    return Graph(functional._inputs_struct, functional._outputs_struct, tuple(steps))


def read_tf_keras(model: Any) -> Graph | None:
    """Returns the graph of a tf_keras model or layer; None where it has none.

    Args:
        model: A model or layer.
    """
    if not getattr(model, "_nodes_by_depth", None):
        return None
    steps = (
        GraphStep(node.layer, node.call_args, node.call_kwargs, tuple(flatten(node.outputs)))
        for node in _nodes(model)
    )
    return Graph(model._nested_inputs, model._nested_outputs, tuple(steps))


def _nodes(functional: Any) -> Iterator[Any]:
    for depth in sorted(functional._nodes_by_depth, reverse=True):
        yield from (node for node in functional._nodes_by_depth[depth] if not node.is_input)


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
