"""Reading a functional model of either Keras as the same plain record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class GraphStep:
    """One use of a layer.

    Args:
        layer: The layer, model or operation.
        args: Its arguments.
        kwargs: Its arguments by name.
        outputs: Its outputs.
    """

    layer: Any
    args: Any
    kwargs: dict[str, Any]
    outputs: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Graph:
    """A functional model.

    Args:
        inputs: Its inputs in the structure that its caller gives.
        outputs: Its outputs in the structure that its caller gets.
        steps: The uses of layers in the order of execution.
    """

    inputs: Any
    outputs: Any
    steps: tuple[GraphStep, ...]


def read_keras(model: Any) -> Graph | None:
    """Returns the graph of a Keras 3 model, None where it has none.

    Args:
        model: A model or layer.
    """
    inner = getattr(model, "_functional", None)  # Sequential keeps one once it is built
    functional = model if hasattr(model, "_nodes_by_depth") else inner
    if functional is None or not hasattr(functional, "_nodes_by_depth"):
        return None
    steps = (
        GraphStep(node.operation, node.arguments.args, node.arguments.kwargs, tuple(node.outputs))
        for node in _nodes(functional)
    )
    return Graph(functional._inputs_struct, functional._outputs_struct, tuple(steps))


def read_tf_keras(model: Any) -> Graph | None:
    """Returns the graph of a tf_keras model, None where it has none.

    Args:
        model: A model or layer.
    """
    if not getattr(model, "_nodes_by_depth", None):
        return None
    steps = (
        GraphStep(node.layer, node.call_args, node.call_kwargs, tuple(flat(node.outputs)))
        for node in _nodes(model)
    )
    return Graph(model._nested_inputs, model._nested_outputs, tuple(steps))


def _nodes(functional: Any) -> Iterator[Any]:
    for depth in sorted(functional._nodes_by_depth, reverse=True):
        yield from (node for node in functional._nodes_by_depth[depth] if not node.is_input)


def mapped(structure: Any, function: Callable[[Any], Any]) -> Any:
    """Applies a function to every leaf of nested lists, tuples and dicts.

    Example:
        >>> mapped([1, {"a": (2, 3)}], lambda x: -x)
        [-1, {'a': (-2, -3)}]

    Args:
        structure: The structure.
        function: leaf -> leaf.
    """
    if isinstance(structure, dict):
        return {key: mapped(value, function) for key, value in structure.items()}
    if isinstance(structure, list | tuple):
        kind = tuple if isinstance(structure, tuple) else list
        return kind(mapped(value, function) for value in structure)
    return function(structure)


def flat(structure: Any) -> list[Any]:
    """Returns the leaves of nested lists, tuples and dicts; dicts in the order of their keys.

    Example:
        >>> flat([1, {"b": 2, "a": (3,)}])
        [1, 3, 2]

    Args:
        structure: The structure.
    """
    if isinstance(structure, dict):
        return [leaf for key in sorted(structure) for leaf in flat(structure[key])]
    if isinstance(structure, list | tuple):
        return [leaf for value in structure for leaf in flat(value)]
    return [structure]
