"""A functional model behind inputs of other sizes: the same layers, called again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfnas.keras_private import fill_arguments, followed_graph, nodes

if TYPE_CHECKING:
    import keras

    from tfnas.graph.known_sizes import Shape


class _Calls:
    """Calls layers again; models inside get inputs of new sizes too, each once for its sizes."""

    def __init__(self) -> None:
        self._inside: dict[tuple[Any, ...], keras.Model] = {}
        self._names: Counter[str] = Counter()

    def model(self, graph: Any, shapes: Sequence[Shape], name: str) -> keras.Model:
        """Returns the model of a graph with inputs of these shapes."""
        import keras

        inputs = [
            keras.Input(batch_shape=shape, dtype=tensor.dtype, name=tensor.name)
            for shape, tensor in zip(shapes, graph.inputs, strict=True)
        ]
        new = {id(old): tensor for old, tensor in zip(graph.inputs, inputs, strict=True)}
        for node in nodes(graph):
            args, kwargs = fill_arguments(node, new)
            operation = self._sized(node, [new[id(each)] for each in node.input_tensors])
            results = keras.tree.flatten(operation(*args, **kwargs))
            new.update({id(old): each for old, each in zip(node.outputs, results, strict=True)})
        return keras.Model(
            keras.tree.pack_sequence_as(graph.input, inputs),
            keras.tree.pack_sequence_as(graph.output, [new[id(each)] for each in graph.outputs]),
            name=name,
        )

    def _sized(self, node: Any, tensors: Sequence[Any]) -> Any:
        """The layer or operation of a call; a model inside with inputs as large as the tensors."""
        operation = node.operation
        graph, shapes = followed_graph(operation), [tuple(each.shape) for each in tensors]
        if graph is None or len(graph.inputs) != len(shapes):
            return operation
        if [tuple(each.shape) for each in graph.inputs] == shapes:
            return operation
        key = id(operation), tuple(shapes)
        if key not in self._inside:
            self._names[operation.name] += 1
            count = self._names[operation.name]
            name = operation.name if count == 1 else f"{operation.name}_{count}"
            self._inside[key] = self.model(graph, shapes, name)
        return self._inside[key]


def with_sizes(model: keras.Model, shapes: Sequence[Shape]) -> keras.Model:
    """Returns a model of the same layers and weights behind inputs of these shapes.

    Args:
        model: A functional or Sequential model.
        shapes: A shape for each of its inputs, the batch first.
    """
    return _Calls().model(followed_graph(model), shapes, model.name)
