"""Leading data through a model, from layer to layer.

Techniques that repair a compressed layer need that layer's inputs on real examples, in the
network as it is once the layers before it have been repaired. :func:`visit` stops before each
layer asked for, hands over its inputs, and goes on with whatever the caller has made of the
layer by then. So one walk through a model repairs it front to back, each layer seeing the
repaired ones before it.

A functional or Sequential model is walked operation by operation, and all batches advance
together, so that a walk costs about one forward pass and holds the tensors that are still
needed. A subclassed model, or such a layer inside, is called anew for each of its layers, up
to that layer. Everything runs eagerly and in inference mode; the model is never compiled,
its weights and flags are not touched.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tfnas.data.datasets import leaves, sliced


@dataclasses.dataclass(frozen=True, eq=False)
class Visit:
    """A layer about to be called, with what it will be given.

    Args:
        layer: The layer.
        inputs: Its first argument, a tensor a batch; of a layer that is used several times
            as many a batch as there are uses.
        successor: The layer of those asked for that takes this one's output as its input,
            as a BatchNormalization takes a convolution's; None where there is none.
        beside: The tensor, a batch, that this layer's output is added to, as a shortcut's,
            directly or behind a BatchNormalization; empty where there is none.
    """

    layer: Any
    inputs: tuple[Any, ...]
    successor: Any
    beside: tuple[Any, ...] = ()


class _Reached(BaseException):
    """Ends a forward pass. No Exception, so that Keras does not dress it up."""


def visit(model: Any, batches: Sequence[Any], layers: Sequence[Any]) -> Iterator[Visit]:
    """Stops before each of some layers, in the order of execution.

    The caller may change the layer that it is given before it asks for the next.

    Args:
        model: A built Keras 3 model of any kind.
        batches: Its inputs, batch by batch.
        layers: Where to stop. Those that are not used are left out.

    Yields:
        Each layer with its inputs.

    Raises:
        ValueError: A batch does not fit the model.
    """
    if not batches:
        raise ValueError("data must hold at least one example, got none")
    uses = _trial(model, batches[0], layers)
    walk = _Walk(model, batches)
    for layer, (count, successor) in uses.items():
        inputs = tuple(walk.inputs_of(layer, count))
        yield Visit(layer, inputs, successor, walk.beside(layer))


class _Walk:
    """All batches on their way through a model.

    Args:
        model: The model.
        batches: Its inputs, batch by batch.
    """

    def __init__(self, model: Any, batches: Sequence[Any]) -> None:
        self._model, self._batches = model, batches
        self._nodes = _nodes(model)
        self._left: dict[int, int] = {}
        self._values: list[dict[int, Any]] = []
        if self._nodes:
            graph = _graph(model)
            for batch in batches:
                flat = graph._standardize_inputs(batch)
                self._values.append({id(t): v for t, v in zip(graph.inputs, flat, strict=True)})
            for node in self._nodes:
                for tensor in node.input_tensors:
                    self._left[id(tensor)] = self._left.get(id(tensor), 0) + 1

    def inputs_of(self, layer: Any, uses: int) -> Iterator[Any]:
        """Yields what the layer is given, batch by batch."""
        inside = [n for n in self._nodes if any(layer is part for part in _parts(n.operation))]
        if len(inside) != 1:  # no node, as in a subclassed model, or a layer used in several
            for batch in self._batches:
                yield from _record(self._model, (batch,), {"training": False}, layer, uses)
            return
        while self._nodes[0] is not inside[0]:
            self._step()
        node = self._nodes[0]
        for values in self._values:
            args, kwargs = node.arguments.fill_in(values)
            yield from _record(node.operation, args, kwargs, layer, uses)

    def beside(self, layer: Any) -> tuple[Any, ...]:
        """The other summand of the Add behind the layer that the walk stands at."""
        if not self._nodes or self._nodes[0].operation is not layer:
            return ()
        tensor = self._nodes[0].outputs[0]
        while True:
            users = [n for n in self._nodes if any(t is tensor for t in n.input_tensors)]
            if len(users) != 1:
                return ()
            kind = type(users[0].operation).__name__
            if kind == "Add" and len(users[0].input_tensors) == 2:
                (other,) = (t for t in users[0].input_tensors if t is not tensor)
                return tuple(v[id(other)] for v in self._values if id(other) in v)
            if kind not in ("BatchNormalization", "Dropout"):
                return ()
            tensor = users[0].outputs[0]

    def _step(self) -> None:
        node = self._nodes.pop(0)
        for tensor in node.input_tensors:
            self._left[id(tensor)] -= 1
        spent = {id(t) for t in node.input_tensors if not self._left[id(t)]}
        for values in self._values:
            args, kwargs = node.arguments.fill_in(values)
            given = _flat(node.operation(*args, **kwargs))
            values.update({id(t): v for t, v in zip(node.outputs, given, strict=True)})
            for key in spent:
                del values[key]


def _record(call: Any, args: Any, kwargs: Any, layer: Any, uses: int) -> list[Any]:
    """What a layer is given while `call` runs; the run ends as soon as that is known."""
    seen: list[Any] = []

    def before(inputs: Any) -> None:
        seen.append(inputs)
        if len(seen) == uses:
            raise _Reached

    with _watched({layer: before}), contextlib.suppress(_Reached):
        call(*args, **kwargs)
    return seen


def _trial(model: Any, batch: Any, layers: Sequence[Any]) -> dict[Any, tuple[int, Any]]:
    """layer -> (number of uses, successor), in the order of execution, by one example."""
    order: dict[Any, int] = {}
    given: dict[Any, int] = {}
    followed: dict[Any, Any] = {}
    held: list[Any] = []  # keeps tensors alive, so that no id is given twice

    def before(layer: Any) -> Callable[[Any], None]:
        def note(inputs: Any) -> None:
            order[layer] = order.get(layer, 0) + 1
            held.append(inputs)
            for previous, output in given.items():
                if output == id(inputs):
                    followed[previous] = layer

        return note

    def after(layer: Any) -> Callable[[Any], None]:
        def note(outputs: Any) -> None:
            held.append(outputs)
            given[layer] = id(outputs)

        return note

    watch = {layer: before(layer) for layer in layers}
    with _watched(watch, {layer: after(layer) for layer in layers}):
        try:
            model(sliced(batch, slice(0, 1)), training=False)
        except (ValueError, TypeError) as error:
            shapes = ", ".join(str(np.shape(leaf)) for leaf in leaves(batch))
            raise ValueError(
                f"data must fit the inputs of {model.name!r}, got a batch of {shapes}: {error}"
            ) from error
    return {layer: (count, followed.get(layer)) for layer, count in order.items()}


@contextlib.contextmanager
def _watched(
    before: dict[Any, Callable[[Any], None]],
    after: dict[Any, Callable[[Any], None]] | None = None,
) -> Iterator[None]:
    """Tells of each layer's inputs and outputs, by a `call` of the instance's own."""

    def watching(layer: Any, call: Any) -> Callable[..., Any]:
        def watched_call(*args: Any, **kwargs: Any) -> Any:
            before[layer](args[0] if args else next(iter(kwargs.values())))
            outputs = call(*args, **kwargs)
            if after:
                after[layer](outputs)
            return outputs

        return watched_call

    own = {layer: layer.__dict__.get("call") for layer in before}
    for layer in before:
        object.__setattr__(layer, "call", watching(layer, layer.call))
    try:
        yield
    finally:
        for layer, call in own.items():
            object.__delattr__(layer, "call")
            if call is not None:
                object.__setattr__(layer, "call", call)


def _graph(model: Any) -> Any:
    """The functional graph of a model; None where it has none."""
    return getattr(model, "_functional", None) or (
        model if hasattr(model, "_standardize_inputs") else None
    )


def _nodes(model: Any) -> list[Any]:
    import keras

    graph = _graph(model)
    own = (keras.Sequential.call, type(graph).call if graph is not None else None)
    if graph is None or type(model).call not in own:  # a subclass with a call of its own
        return []
    by_depth = graph._nodes_by_depth
    nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    return [node for node in nodes if not node.is_input]


def _parts(operation: Any) -> list[Any]:
    flatten = getattr(operation, "_flatten_layers", None)
    return list(flatten()) if flatten else [operation]


def _flat(outputs: Any) -> list[Any]:
    import keras

    return list(keras.tree.flatten(outputs))
