"""Runs data through a model layer by layer, and stops before chosen layers.

Techniques that repair a compressed layer need its inputs on real examples, as they are after the
layers before it have been repaired. :func:`visit` stops before each requested layer and yields
its inputs. The caller may change the layer, and the run goes on with the changed one. So one run
repairs a model front to back.

A functional or Sequential model runs from one stop to the next, batch by batch. That costs about
one forward pass. Between two stops it holds only the tensors that are still needed, of all
batches: in memory up to a limit, in temporary files beyond it
(:mod:`tfnas.graph.tensor_columns`). A subclassed model or layer is called again for each layer
inside it, up to that layer. Everything runs eagerly and in inference mode; the model is not
compiled, and its weights and flags are not changed.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.data.examples import leaves
from tfnas.data.reading import sliced
from tfnas.graph.tensor_columns import Column, ColumnMemory
from tfnas.keras_private import (
    all_layers,
    call_takes_training,
    fill_arguments,
    nodes,
    recorded_graph,
    standardized_inputs,
)

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True, eq=False)
class Visit:
    """A layer that is about to be called, with its inputs.

    Args:
        layer: The layer.
        inputs: Its first argument, one tensor per batch; for a layer that is used several
            times, one per batch and use. Each is read when it is asked for.
        successor: The requested layer whose input is this layer's output, such as the
            BatchNormalization after a convolution; None where there is none.
        beside: The tensors, one per batch, that this layer's output is added to (a shortcut),
            directly or after a BatchNormalization; empty where there is none.
        uses: How often the layer is used with each batch.
    """

    layer: Any
    inputs: Sequence[Any]
    successor: Any
    beside: Sequence[Any] = ()
    uses: int = 1

    @property
    def batches(self) -> int:
        """The number of batches."""
        return len(self.inputs) // self.uses

    def half(self, first: int) -> Visit:
        """Returns the same layer with every second batch.

        Args:
            first: 0 for the batches with even numbers, 1 for the others.
        """

        def picked(values: Sequence[Any], uses: int) -> Sequence[Any]:
            places = [k for k in range(len(values)) if k // uses % 2 == first]
            return (
                values.picked(places) if isinstance(values, Column) else [values[k] for k in places]
            )

        inputs, beside = picked(self.inputs, self.uses), picked(self.beside, 1)
        return dataclasses.replace(self, inputs=inputs, beside=beside)


class _Reached(BaseException):
    """Ends a forward pass. Not an Exception, so that Keras does not add to its message."""


MEMORY = 2**29  # bytes


def visit(
    model: keras.Model,
    batches: Sequence[Any],
    layers: Sequence[keras.layers.Layer],
    *,
    memory: int = MEMORY,
) -> Iterator[Visit]:
    """Yields chosen layers with their inputs, in the order of execution.

    The caller may change a layer before it requests the next one.

    Args:
        model: A built Keras 3 model of any kind.
        batches: Its inputs, batch by batch.
        layers: Where to stop. Layers that are not used are left out.
        memory: Bytes of tensors that are held in memory between two stops; others are in
            temporary files. Results do not depend on it.

    Yields:
        Each layer with its inputs.

    Raises:
        ValueError: There is no batch, or one does not fit the model.
    """
    if not batches:
        raise ValueError("data must hold at least one example, got none")
    uses = _find_uses(model, batches[0], layers)
    run = _Run(model, batches, memory)
    for layer, (count, successor) in uses.items():
        inputs = run.inputs_of(layer, count)
        yield Visit(layer, inputs, successor, run.beside(layer), count)
        del inputs


def visit_both(
    first: tuple[keras.Model, Sequence[keras.layers.Layer]],
    second: tuple[keras.Model, Sequence[keras.layers.Layer]],
    batches: Sequence[Any],
    memory: int = MEMORY,
) -> Iterator[tuple[Visit, Visit]]:
    """Yields layers of two models with their inputs, side by side.

    Args:
        first: A model and its layers, as for :func:`visit`.
        second: Another model and the layers that correspond, in the same order.
        batches: Inputs of both, batch by batch.
        memory: As for :func:`visit`, for each model.

    Yields:
        The layer of the first model, which the caller may change, and that of the second.
    """
    runs = (visit(model, batches, layers, memory=memory) for model, layers in (first, second))
    yield from zip(*runs, strict=True)


class _Run:
    """A forward pass of all batches that advances from stop to stop.

    Args:
        model: The model.
        batches: Its inputs, batch by batch.
        memory: Bytes of tensors that it holds in memory.
    """

    def __init__(self, model: Any, batches: Sequence[Any], memory: int) -> None:
        self._model, self._batches = model, batches
        self._memory = ColumnMemory(memory)
        self._nodes = _nodes(model)
        self._columns: dict[int, Column] = {}  # by the id of a symbolic tensor
        if self._nodes:
            graph = recorded_graph(model)
            self._columns = {id(tensor): self._memory.column() for tensor in graph.inputs}
            for batch in batches:
                flat = standardized_inputs(graph, batch)
                for tensor, value in zip(graph.inputs, flat, strict=True):
                    self._columns[id(tensor)].append(value)

    def inputs_of(self, layer: Any, uses: int) -> Column:
        """Returns the layer's inputs, batch by batch; moves the run up to it."""
        inside = [n for n in self._nodes if any(layer is part for part in _parts(n.operation))]
        inputs = self._memory.column()
        if len(inside) != 1:  # no graph (a subclassed model), or a layer in several nodes
            for batch in self._batches:
                for seen in _record(self._model, (batch,), {"training": False}, layer, uses):
                    inputs.append(seen)
            return inputs
        self._advance(self._nodes.index(inside[0]))
        for index in range(len(self._batches)):
            values = self._read(index, self._nodes[:1])
            args, kwargs = fill_arguments(self._nodes[0], values)
            recorded = _record(self._nodes[0].operation, args, kwargs, layer, uses)
            for key, value in values.items():
                if len(recorded) == 1 and recorded[0] is value:
                    return self._columns[key]
            for seen in recorded:
                inputs.append(seen)
        return inputs

    def beside(self, layer: Any) -> Sequence[Any]:
        """The other input of the Add after the layer that the run has reached."""
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
                return self._columns.get(id(other), ())
            if kind not in _LINEAR or getattr(users[0].operation, "relu", None) is not None:
                return ()
            tensor = users[0].outputs[0]

    def _advance(self, count: int) -> None:
        """Runs the next nodes, each batch through all of them."""
        done, self._nodes = self._nodes[:count], self._nodes[count:]
        if not done:
            return
        needed = {id(tensor) for node in self._nodes for tensor in node.input_tensors}
        made = {id(t): self._memory.column() for n in done for t in n.outputs if id(t) in needed}
        for index in range(len(self._batches)):
            values = _run(done, self._read(index, done), needed)
            for key, column in made.items():
                column.append(values[key])
        kept = {key: column for key, column in self._columns.items() if key in needed}
        self._columns = kept | made

    def _read(self, index: int, users: Sequence[Any]) -> dict[int, Any]:
        """The tensors of one batch that these nodes take from earlier ones."""
        keys = {id(tensor) for node in users for tensor in node.input_tensors}
        return {key: self._columns[key][index] for key in keys if key in self._columns}


def _run(done: Sequence[Any], values: dict[int, Any], needed: Collection[int]) -> dict[int, Any]:
    """Runs one batch through nodes; drops tensors that neither they nor later nodes need."""
    last = {id(tensor): node for node in done for tensor in node.input_tensors}
    for node in done:
        args, kwargs = fill_arguments(node, values)
        if call_takes_training(node.operation):
            # A Resizing in a model inside would turn it on for all layers behind it (Keras 3.15).
            kwargs.setdefault("training", False)
        outputs = _flat(node.operation(*args, **kwargs))
        del args, kwargs
        values.update({id(t): v for t, v in zip(node.outputs, outputs, strict=True)})
        del outputs
        for key in {id(tensor) for tensor in node.input_tensors}:
            if last[key] is node and key not in needed:
                del values[key]
    return values


def flat_outputs(model: keras.Model, batch: Any) -> list[Any]:
    """Returns the outputs of a model, flat, and holds few tensors at a time.

    Keras holds the outputs of all layers until the last has run: 4 GB for 48 images in
    EfficientNet-Lite0 with fake quantization.

    Args:
        model: A built model.
        batch: Its inputs.
    """
    calls = _nodes(model)
    if not calls:
        return _flat(model(batch, training=False))
    graph = recorded_graph(model)
    flat = standardized_inputs(graph, batch)
    values = {id(tensor): value for tensor, value in zip(graph.inputs, flat, strict=True)}
    del flat
    values = _run(calls, values, {id(tensor) for tensor in graph.outputs})
    return [values[id(tensor)] for tensor in graph.outputs]


# Between a layer and the sum that it is added in. A FakeQuant may hold a ReLU.
_LINEAR = ("BatchNormalization", "Dropout", "FakeQuant")


def _record(call: Any, args: Any, kwargs: Any, layer: Any, uses: int) -> list[Any]:
    """Records a layer's inputs while `call` runs; stops once there are `uses` of them."""
    seen: list[Any] = []

    def before(inputs: Any) -> None:
        seen.append(inputs)
        if len(seen) == uses:
            raise _Reached

    with _hooked({layer: before}), contextlib.suppress(_Reached):
        call(*args, **kwargs)
    return seen


def _find_uses(model: Any, batch: Any, layers: Sequence[Any]) -> dict[Any, tuple[int, Any]]:
    """Runs one example; returns layer -> (number of uses, successor) in order of execution."""
    counts: dict[Any, int] = {}
    output_ids: dict[Any, int] = {}
    successors: dict[Any, Any] = {}
    alive: list[Any] = []  # keeps tensors alive, so that no id is used twice

    def before(layer: Any) -> Callable[[Any], None]:
        def record(inputs: Any) -> None:
            counts[layer] = counts.get(layer, 0) + 1
            alive.append(inputs)
            for previous, output_id in output_ids.items():
                if output_id == id(inputs):
                    successors[previous] = layer

        return record

    def after(layer: Any) -> Callable[[Any], None]:
        def record(outputs: Any) -> None:
            alive.append(outputs)
            output_ids[layer] = id(outputs)

        return record

    hooks = {layer: before(layer) for layer in layers}
    with _hooked(hooks, {layer: after(layer) for layer in layers}):
        try:
            model(sliced(batch, slice(0, 1)), training=False)
        except (ValueError, TypeError) as error:
            shapes = ", ".join(str(np.shape(leaf)) for leaf in leaves(batch))
            raise ValueError(
                f"data must fit the inputs of {model.name!r}, got a batch of {shapes}: {error}"
            ) from error
    return {layer: (count, successors.get(layer)) for layer, count in counts.items()}


@contextlib.contextmanager
def _hooked(
    before: dict[Any, Callable[[Any], None]],
    after: dict[Any, Callable[[Any], None]] | None = None,
) -> Iterator[None]:
    """Calls hooks with layers' inputs and outputs, by setting `call` on the instances."""

    def with_hooks(layer: Any, call: Any) -> Callable[..., Any]:
        def hooked_call(*args: Any, **kwargs: Any) -> Any:
            before[layer](args[0] if args else next(iter(kwargs.values())))
            outputs = call(*args, **kwargs)
            if after:
                after[layer](outputs)
            return outputs

        return hooked_call

    originals = {layer: layer.__dict__.get("call") for layer in before}
    for layer in before:
        object.__setattr__(layer, "call", with_hooks(layer, layer.call))
    try:
        yield
    finally:
        for layer, call in originals.items():
            object.__delattr__(layer, "call")
            if call is not None:
                object.__setattr__(layer, "call", call)


def _nodes(model: Any) -> list[Any]:
    import keras

    graph = recorded_graph(model)
    standard = (keras.Sequential.call, type(graph).call if graph is not None else None)
    if graph is None or type(model).call not in standard:  # a subclass that overrides `call`
        return []
    return nodes(graph)


def _parts(operation: Any) -> list[Any]:
    import keras

    return all_layers(operation) if isinstance(operation, keras.layers.Layer) else [operation]


def _flat(outputs: Any) -> list[Any]:
    import keras

    return list(keras.tree.flatten(outputs))
