"""Walking a functional Keras model as a flat list of calls, rebuilding and copying it.

Nested models are walked into, and a layer that is used twice is there twice, once a
call: what costs time and memory is the call, not the layer.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A layer that a transform left as it was.

    Args:
        name: Path of the layer.
        kind: Its class.
        reason: Why.
    """

    name: str
    kind: str
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """A tensor that flows between calls.

    Args:
        shape: Its shape; None is an open dimension.
        dtype: Its element type.
    """

    shape: tuple[int | None, ...]
    dtype: str


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One use of a layer or operation.

    Args:
        name: The layer's name; inside a nested model "outer/inner".
        operation: The Keras layer or operation.
        inputs: The values that it takes.
        outputs: The values that it gives.
        node: Keras' own record of the call, with its other arguments.
        training: What a nested model around it was called with, None where nothing.
    """

    name: str
    operation: Any
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    node: Any = dataclasses.field(default=None, repr=False)
    training: bool | None = None

    @property
    def kind(self) -> str:
        """The class of the layer or operation."""
        return type(self.operation).__name__

    def arguments(self, tensors: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the call's (args, kwargs) with other tensors for its inputs.

        Args:
            tensors: One for each of `inputs`, in their order.
        """
        own = {id(t): new for t, new in zip(self.node.input_tensors, tensors, strict=True)}
        args, kwargs = self.node.arguments.fill_in(own)
        takes_it = getattr(self.operation, "_call_has_training_arg", False)
        if self.training is not None and takes_it:
            kwargs = {"training": self.training, **kwargs}
        return args, kwargs


@dataclasses.dataclass(frozen=True, eq=False)
class Walk:
    """A model as calls in the order of execution.

    Args:
        inputs: The model's inputs.
        calls: The calls; input layers are left out.
        outputs: The model's outputs.
    """

    inputs: tuple[Value, ...]
    calls: tuple[Call, ...]
    outputs: tuple[Value, ...]


Inside = Callable[[Any], Any]  # Keras' record of a call -> the model that it stands for, or None


def walk(model: Any, inside: Inside | None = None) -> Walk:
    """Returns the calls of a functional or Sequential model.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="d")])
        >>> [call.name for call in walk(model).calls]
        ['d']

    Args:
        model: A built Keras 3 model.
        inside: Names other calls to walk into, as if each were of a nested model.

    Raises:
        ValueError: The model is not built from layers with known connections.
    """
    functional = _functional(model)
    if functional is None:
        raise ValueError(
            f"model must be a built functional or Sequential Keras model, got "
            f"{getattr(model, 'name', model)!r} of type {type(model).__name__}"
        )
    inputs = tuple(_value(tensor) for tensor in functional.inputs)
    calls: list[Call] = []
    outputs = _walk_into(functional, inputs, "", calls, inside=inside)
    return Walk(inputs, tuple(calls), outputs)


def clone(model: Any) -> Any:
    """Returns a copy of a model with weights of its own; like Keras' clones, not compiled.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="d")])
        >>> copy = clone(model)
        >>> copy.layers[0].name, copy.layers[0] is model.layers[0]
        ('d', False)

    Args:
        model: A built Keras 3 model: functional, Sequential, or subclassed with a
            `get_config` that makes it again.

    Raises:
        ValueError: It can't be copied.
    """
    import keras

    if not isinstance(model, keras.Model) or not model.built:
        what = "not built" if isinstance(model, keras.Model) else type(model).__name__
        raise ValueError(f"model must be a built Keras 3 model, got {what}")
    compiled, model.compiled = model.compiled, False  # Keras would copy losses by their config
    try:
        copy = keras.models.clone_model(model)
        if not copy.built:
            copy.build_from_config(model.get_build_config())
        copy.set_weights(model.get_weights())
        settle(copy)
    except (NotImplementedError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"model {model.name!r} can't be copied: its class and its layers need a get_config() "
            f"that makes them again ({' '.join(str(error).split())[:200]})"
        ) from error
    finally:
        model.compiled = compiled
    return copy


def rebuild(
    model: Any,
    apply: Callable[[Call, list[Any]], Sequence[Any]],
    *,
    flow: Walk | None = None,
    on_input: Callable[[Any], Any] | None = None,
) -> Any:
    """Returns a new functional model, made call by call; nested models become flat.

    Args:
        model: A built functional or Sequential model.
        apply: Takes a call and the new tensors for its inputs, and returns the new tensors
            for its outputs.
        flow: The model's :func:`walk`, where `apply` knows its values.
        on_input: Takes the new tensor of an input and returns what stands for it.

    Raises:
        ValueError: The model is not built from layers with known connections.
    """
    import keras

    flow = flow or walk(model)
    given = [
        keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)
        for tensor in model.inputs
    ]
    entering = given if on_input is None else [on_input(tensor) for tensor in given]
    known = dict(zip(flow.inputs, entering, strict=True))
    for call in flow.calls:
        results = apply(call, [known[value] for value in call.inputs])
        known.update(zip(call.outputs, results, strict=True))
    outputs = [known[value] for value in flow.outputs]
    functional = _functional(model)
    return keras.Model(
        keras.tree.pack_sequence_as(functional.input, given),
        keras.tree.pack_sequence_as(functional.output, outputs),
        name=model.name,
    )


class LayerCopies:
    """Copies of layers, one a layer however often it is used, with unique names.

    Args:
        edit: Takes the configuration of a layer and returns that of its copy.
    """

    def __init__(self, edit: Callable[[Any], Any] = lambda config: config) -> None:
        self._edit = edit
        self._copies: dict[int, tuple[Any, Any]] = {}
        self._operations: dict[int, tuple[Any, Any]] = {}
        self._names: Counter[str] = Counter()
        self._later: list[tuple[Any, list[Any]]] = []

    def of(self, layer: Any, **changes: Any) -> Any:
        """Returns the copy of a layer; `changes` go into its configuration."""
        if id(layer) not in self._copies:
            self._copies[id(layer)] = layer, self._copy(layer, changes)
        return self._copies[id(layer)][1]

    def _copy(self, layer: Any, changes: dict[str, Any]) -> Any:
        try:
            config = {**self._edit(layer.get_config()), **changes}
            return type(layer).from_config({**config, "name": self.unique(layer.name)})
        except (NotImplementedError, TypeError, ValueError) as error:
            if layer.weights:
                raise ValueError(
                    f"layer {layer.name!r} can't be copied: its class {type(layer).__name__} "
                    f"needs a get_config() that makes it again ({str(error)[:200]})"
                ) from error
            return layer  # nothing of it is trained: both models may hold it, as a Lambda

    def call(self, call: Call, tensors: list[Any]) -> list[Any]:
        """Makes a call anew with the copy of its layer; an operation serves as it is."""
        import keras

        args, kwargs = call.arguments(tensors)
        layer = call.operation
        layer = self.of(layer) if isinstance(layer, keras.layers.Layer) else self._renamed(layer)
        return list(keras.tree.flatten(layer(*args, **kwargs)))

    def _renamed(self, operation: Any) -> Any:
        """An operation as it is, or where another of its name was called one of a free name.

        Nested models may hold operations of one name, which is refused once they are flat.
        """
        if id(operation) in self._operations:
            return self._operations[id(operation)][1]
        name = self.unique(operation.name)
        used = operation
        if name != operation.name:
            used = copy.copy(operation)
            used.name = name
            used._inbound_nodes, used._outbound_nodes = [], []
        self._operations[id(operation)] = operation, used
        return used

    def carry_weights(self, values: Callable[[Any], list[Any]] | None = None) -> None:
        """Gives all copies their layers' weights, once they are built.

        Args:
            values: Gives a layer's weights for its copy; None: as they are.
        """
        for layer, made in self._copies.values():
            if made is not layer:
                made.set_weights(layer.get_weights() if values is None else values(layer))
                settle(made)
        for layer, given in self._later:
            layer.set_weights(given)

    def set_later(self, layer: Any, values: list[Any]) -> None:
        """Remembers weights of a layer that is no copy of one."""
        self._later.append((layer, values))

    def unique(self, name: str) -> str:
        """Returns a name that was not given before."""
        free = name
        while free in self._names:
            self._names[name] += 1
            free = f"{name}_{self._names[name]}"
        self._names[free] += 1
        return free


def settle(model: Any) -> None:
    """Makes layers whose numbers follow from their weights look at them again.

    An adapted Normalization computes with what it derived from its weights when it was
    adapted; setting the weights alone leaves it as it was.
    """
    import keras

    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
            layer.finalize_state()


def gives_probabilities(model: Any) -> bool:
    """Whether a classifier's output is a softmax or sigmoid, and not logits.

    Example:
        >>> import keras
        >>> gives_probabilities(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
        False

    Args:
        model: A built functional or Sequential model with one output.

    Raises:
        ValueError: The model has no known connections, or several outputs.
    """
    return bool(last_activation(model))


def last_activation(model: Any) -> str:
    """Returns "softmax" or "sigmoid" where a classifier ends in one, else "".

    Example:
        >>> import keras
        >>> dense = keras.layers.Dense(2, activation="softmax")
        >>> last_activation(keras.Sequential([keras.Input((4,)), dense]))
        'softmax'

    Args:
        model: A built functional or Sequential model with one output.

    Raises:
        ValueError: The model has no known connections, or several outputs.
    """
    flow = walk(model)
    if len(flow.outputs) != 1:
        raise ValueError(f"model must have one output, got {len(flow.outputs)}")
    wanted = flow.outputs[0]
    for call in reversed(flow.calls):
        if wanted not in call.outputs:
            continue
        kind = type(call.operation).__name__.lower()
        activation = getattr(getattr(call.operation, "activation", None), "__name__", "")
        if found := {kind, activation} & {"softmax", "sigmoid"}:
            return found.pop()
        if kind not in ("reshape", "flatten", "dropout", "identity", "activation", "fakequant"):
            return ""  # FakeQuant: the rounding of an integer file
        if kind == "activation" and activation != "linear":
            return ""
        wanted = call.inputs[0]
    return ""


def _walk_into(
    functional: Any,
    inputs: tuple[Value, ...],
    prefix: str,
    calls: list[Call],
    training: bool | None = None,
    inside: Inside | None = None,
) -> tuple[Value, ...]:
    known = {id(t): value for t, value in zip(functional.inputs, inputs, strict=True)}
    for depth in sorted(functional._nodes_by_depth, reverse=True):
        for node in functional._nodes_by_depth[depth]:
            if node.is_input:
                continue
            taken = tuple(known[id(tensor)] for tensor in node.input_tensors)
            name = prefix + node.operation.name
            inner = _functional(node.operation)
            if inner is None and inside is not None:
                inner = inside(node)
            if inner is not None and len(inner.inputs) == len(taken):
                asked = node.arguments.kwargs.get("training", training)
                given = _walk_into(inner, taken, f"{name}/", calls, asked, inside)
            else:
                given = tuple(_value(tensor) for tensor in node.outputs)
                calls.append(Call(name, node.operation, taken, given, node, training))
            known.update({id(t): value for t, value in zip(node.outputs, given, strict=True)})
    return tuple(known[id(tensor)] for tensor in functional.outputs)


def _functional(model: Any) -> Any:
    """The functional graph of a model or layer, None where it has none.

    One with a `call` of its own computes something else than its graph.
    """
    inner = getattr(model, "_functional", None)  # Sequential keeps one once it is built
    candidate = model if hasattr(model, "_nodes_by_depth") else inner
    calls = next((c for c in type(model).__mro__ if "call" in vars(c)), None)
    own = calls is None or calls.__module__.startswith("keras.src.models.")
    return candidate if own and hasattr(candidate, "_nodes_by_depth") else None


def _value(tensor: Any) -> Value:
    return Value(tuple(tensor.shape), str(tensor.dtype))
