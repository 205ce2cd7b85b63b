"""Lists the calls of a functional Keras model in order, and rebuilds or copies the model.

The list is flat: it contains the calls inside nested models, of subclassed ones and blocks of
layers too where they can be traced, and a layer that is used twice appears twice, since each call
costs time and memory.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfnas.graph.known_sizes import output_shapes
from tfnas.graph.layer_blocks import opened_block
from tfnas.graph.model_class import in_class_of, own_objects, own_steps, plain
from tfnas.graph.output_names import name_outputs
from tfnas.graph.precision import new_layers_of, policy_of
from tfnas.graph.registered_layers import check_slices, kind_of
from tfnas.graph.subclassed import opened_call
from tfnas.graph.unfolding import unfold
from tfnas.keras_private import (
    all_layers,
    call_takes_training,
    fill_arguments,
    followed_graph,
    forget_calls,
    lambda_copy,
    nodes,
)

if TYPE_CHECKING:
    import keras


# What a layer's own code raises that can't be created again from its configuration.
_NO_COPY = (NotImplementedError, TypeError, ValueError, AttributeError)


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A layer that a transformation did not change.

    Args:
        name: Path of the layer.
        kind: Name of its class.
        reason: Why it was not changed.
    """

    name: str
    kind: str
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """A symbolic tensor between two calls.

    Args:
        shape: Its shape, batch first; None is an unknown dimension.
        dtype: Its element type, such as "float32".
    """

    shape: tuple[int | None, ...]
    dtype: str


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One use of a layer or operation.

    Args:
        name: The layer's name; inside a nested model "outer/inner".
        operation: The Keras layer or operation.
        inputs: Its input tensors.
        outputs: Its output tensors.
        node: Keras' own record of the call, with its other arguments.
        training: The `training` argument of the call of the nested model around it; None where
            there was none.
    """

    name: str
    operation: Any
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    node: Any = dataclasses.field(default=None, repr=False)
    training: bool | None = None

    @property
    def kind(self) -> str:
        """Name of the layer's or operation's class, as :func:`kind_of` gives it."""
        return kind_of(type(self.operation))

    def arguments(self, tensors: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the call's (args, kwargs) with new tensors in place of its inputs.

        Args:
            tensors: One for each of `inputs`, in order.
        """
        new = {id(old): new for old, new in zip(self.node.input_tensors, tensors, strict=True)}
        args, kwargs = fill_arguments(self.node, new)
        if self.training is not None and call_takes_training(self.operation):
            kwargs = {"training": self.training, **kwargs}
        return args, kwargs


@dataclasses.dataclass(frozen=True, eq=False)
class Walk:
    """A model as a list of calls in the order of execution.

    Args:
        inputs: The model's inputs.
        calls: The calls; input layers are left out.
        outputs: The model's outputs.
    """

    inputs: tuple[Value, ...]
    calls: tuple[Call, ...]
    outputs: tuple[Value, ...]

    @functools.cached_property
    def producers(self) -> dict[Value, Call]:
        """The call that makes each value; the model's inputs have none."""
        return {value: call for call in self.calls for value in call.outputs}

    @functools.cached_property
    def readers(self) -> defaultdict[Value, list[Call]]:
        """The calls that read each value, in order; one that reads it twice is there once."""
        found: defaultdict[Value, list[Call]] = defaultdict(list)
        for call in self.calls:
            for value in dict.fromkeys(call.inputs):
                found[value].append(call)
        return found

    @functools.cached_property
    def uses(self) -> Counter[Value]:
        """How often each value is read by a call, or is an output of the model."""
        return Counter([*(v for call in self.calls for v in call.inputs), *self.outputs])

    def calls_of(self, operation: Any) -> list[Call]:
        """Returns the calls of a layer or operation, in order."""
        return self._calls_by_id.get(id(operation), [])

    @functools.cached_property
    def _calls_by_id(self) -> dict[int, list[Call]]:
        found: dict[int, list[Call]] = {}
        for call in self.calls:
            found.setdefault(id(call.operation), []).append(call)
        return found


def walk(model: keras.Model, inputs: Sequence[Value] | None = None) -> Walk:
    """Returns the calls of a functional or Sequential model.

    Nested models and layers registered as "open" are walked into. Sizes that a nested model leaves
    open are those of its call.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="d")])
        >>> [call.name for call in walk(model).calls]
        ['d']

    Args:
        model: A built Keras 3 model.
        inputs: The values of the model's inputs, whose shapes may have sizes that the model leaves
            open; None: those of the model.

    Raises:
        ValueError: The model is not a built functional or Sequential model.
    """
    functional = followed_graph(model)
    if functional is None:
        raise ValueError(
            f"model must be a built functional or Sequential Keras model, got "
            f"{getattr(model, 'name', model)!r} of type {type(model).__name__}"
        )
    inputs = tuple(inputs or (_value(tensor) for tensor in functional.inputs))
    calls: list[Call] = []
    outputs = _walk_into(functional, inputs, "", calls)
    return Walk(inputs, tuple(calls), outputs)


def repeat_call(call: Call, tensors: dict[Value, Any]) -> None:
    """Calls a layer or an operation on other tensors, and notes its results.

    Args:
        call: The call.
        tensors: Value -> its new tensor, of the call's inputs at least; its outputs are added.
    """
    import keras

    args, kwargs = call.arguments([tensors[value] for value in call.inputs])
    results = keras.tree.flatten(call.operation(*args, **kwargs))
    tensors.update(zip(call.outputs, results, strict=True))


def clone(model: keras.Model) -> keras.Model:
    """Returns a copy of a model with a copy of its weights, not compiled.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="d")])
        >>> copy = clone(model)
        >>> copy.layers[0].name, copy.layers[0] is model.layers[0]
        ('d', False)

    Args:
        model: A built Keras 3 model: functional, Sequential, or subclassed with a
            `get_config` that suffices to create it again.

    Raises:
        ValueError: The model can't be copied.
    """
    import keras

    if not isinstance(model, keras.Model) or not model.built:
        found = "an unbuilt one" if isinstance(model, keras.Model) else type(model).__name__
        raise ValueError(f"model must be a built Keras 3 model, got {found}")
    copy = _copy_of(plain(model), model.name, own_objects(model))
    if own_steps(model) and followed_graph(model) is not None:
        copy = in_class_of(model, copy.input, copy.output)
    name_outputs(copy, getattr(model, "output_names", None))
    return copy


def _copy_of(model: keras.Model, name: str, objects: dict[str, Any]) -> keras.Model:
    """A copy with a copy of the weights.

    Args:
        model: The model, whose class Keras copies.
        name: Its name in the error message.
        objects: Classes and functions that Keras doesn't know, by name.
    """
    import keras

    # Keras would copy losses from their configuration.
    compiled, model.compiled = model.compiled, False
    try:
        with keras.saving.custom_object_scope(objects):
            try:
                copy = keras.models.clone_model(model, **_cloning(model))
            except _NO_COPY as first:
                if followed_graph(model) is None:
                    raise
                try:
                    copy = keras.models.clone_model(model, clone_function=_copied, recursive=True)
                except _NO_COPY:
                    raise first from None
        if not copy.built:
            copy.build_from_config(model.get_build_config())
        copy.set_weights(model.get_weights())
        refresh_normalization(copy)
    except _NO_COPY as error:
        raise ValueError(
            f"model {name!r} can't be copied: its class and its layers need a get_config() "
            f"from which they can be created again ({' '.join(str(error).split())[:200]})"
        ) from error
    finally:
        model.compiled = compiled
    return copy


def _cloning(model: keras.Model) -> dict[str, Any]:
    """Arguments of `clone_model`: a Lambda keeps its function, which its configuration lacks."""
    import keras

    if not any(isinstance(layer, keras.layers.Lambda) for layer in all_layers(model)):
        return {}

    return {"clone_function": _copied, "recursive": True}


def _copied(layer: Any) -> Any:
    """A copy of a layer; the layer itself where it has no weights and can't be created again."""
    import keras

    if isinstance(layer, keras.layers.Lambda):
        return lambda_copy(layer, layer.name, layer.dtype_policy)
    try:
        return type(layer).from_config(layer.get_config())
    except _NO_COPY:
        if layer.weights or isinstance(layer, keras.Model):
            raise
        return layer


def rebuild(
    model: keras.Model,
    apply: Callable[[Call, list[Any]], Sequence[Any]],
    *,
    class_of: keras.Model | None,
    flow: Walk | None = None,
    on_input: Callable[[Any], Any] | None = None,
    input_dtypes: Mapping[str, str] | None = None,
    batch_size: int | None = None,
) -> keras.Model:
    """Builds a new functional model call by call, not compiled; nested models become flat.

    Layers that `apply` makes have the precision of the model's.

    Args:
        model: A built functional or Sequential model.
        apply: Takes a call and the new tensors for its inputs, and returns the new tensors
            for its outputs.
        class_of: The model whose class is kept where it trains in its own way, see
            :func:`~tfnas.graph.model_class.in_class_of`; None: the new model is not trained.
        flow: The model's :func:`walk`, if `apply` refers to its calls or values; None: a new one.
        input_dtypes: Types of inputs by name, where they are others than the model's.
        on_input: Takes the new tensor of an input and returns the tensor to use in its place.
        batch_size: The size of the batch where an input leaves it open; None: it stays open.

    Raises:
        ValueError: The model is not a built functional or Sequential model, or its class can't
            be kept.
    """
    import keras

    flow = flow or walk(model)
    inputs = [
        keras.Input(
            batch_shape=(tensor.shape[0] or batch_size, *tensor.shape[1:]),
            dtype=(input_dtypes or {}).get(tensor.name, tensor.dtype),
            name=tensor.name,
        )
        for tensor in model.inputs
    ]
    with new_layers_of(policy_of(model)):
        used = inputs if on_input is None else [on_input(tensor) for tensor in inputs]
        tensors = dict(zip(flow.inputs, used, strict=True))
        for call in flow.calls:
            results = apply(call, [tensors[value] for value in call.inputs])
            tensors.update(zip(call.outputs, results, strict=True))
    outputs = [tensors[value] for value in flow.outputs]
    functional = followed_graph(model)
    structured = (
        keras.tree.pack_sequence_as(functional.input, inputs),
        keras.tree.pack_sequence_as(functional.output, outputs),
    )
    if class_of is None:
        new = keras.Model(*structured, name=model.name)
    else:
        new = in_class_of(class_of, *structured)
    name_outputs(new, functional.output_names)
    return new


class LayerCopies:
    """Copies layers, each only once even if it is used several times, with unique names.

    Args:
        edit: Takes the configuration of a layer and returns that of its copy.
        kept_names: Names of layers, which no part of another layer gets: see :meth:`unique_part`.
    """

    def __init__(
        self,
        edit: Callable[[Any], Any] = lambda config: config,
        kept_names: Collection[str] = (),
    ) -> None:
        self._edit, self._kept_names = edit, frozenset(kept_names)
        self._copies: dict[int, tuple[Any, Any]] = {}
        self._operations: dict[int, tuple[Any, Any]] = {}
        self._parts: dict[tuple[int, str], tuple[Any, Any]] = {}
        self._names: Counter[str] = Counter()
        self._later: list[tuple[Any, list[Any]]] = []

    def of(self, layer: Any, /, **changes: Any) -> Any:
        """Returns the copy of a layer; `changes` update its configuration; a name is a part's."""
        if id(layer) not in self._copies:
            self._copies[id(layer)] = layer, self._copy(layer, changes)
        return self._copies[id(layer)][1]

    def part(self, layer: Any, name: str, make: Callable[[], Any]) -> Any:
        """Returns a layer that computes a part of another one, made once for all of its calls.

        Args:
            layer: The layer that has the part.
            name: What the part is called.
            make: Makes it.
        """
        key = id(layer), name
        if key not in self._parts:
            self._parts[key] = layer, make()
        return self._parts[key][1]

    def _copy(self, layer: Any, changes: dict[str, Any]) -> Any:
        import keras

        if isinstance(layer, keras.layers.Lambda):
            policy = self._edit({"dtype": keras.dtype_policies.serialize(layer.dtype_policy)})
            return lambda_copy(layer, self.unique(layer.name), policy["dtype"])
        if type(layer) is keras.layers.TimeDistributed and not changes:
            # Others may call the layer inside too, so it has one copy.
            config = {**self._edit(layer.get_config()), "name": self.unique(layer.name)}
            return type(layer)(**{**config, "layer": self.of(layer.layer)})
        try:
            part = changes.pop("name", None)
            name = self.unique(layer.name) if part is None else self.unique_part(part)
            config = {**self._edit(layer.get_config()), **changes}
            with keras.saving.custom_object_scope(own_objects(layer)):
                return type(layer).from_config({**config, "name": name})
        except _NO_COPY as error:
            if layer.weights:
                raise ValueError(
                    f"layer {layer.name!r} can't be copied: its class {type(layer).__name__} "
                    f"needs a get_config() from which it can be created again ({str(error)[:200]})"
                ) from error
            return layer  # without weights both models may share it

    def call(self, call: Call, tensors: list[Any]) -> list[Any]:
        """Repeats a call with the copy of its layer; an operation is used itself."""
        import keras

        args, kwargs = call.arguments(tensors)
        layer = call.operation
        layer = self.of(layer) if isinstance(layer, keras.layers.Layer) else self._renamed(layer)
        return list(keras.tree.flatten(layer(*args, **kwargs)))

    def _renamed(self, operation: Any) -> Any:
        """Returns the operation, or a copy with a free name if its name is taken.

        Nested models may hold operations of the same name, which Keras refuses in a flat model.
        """
        if id(operation) in self._operations:
            return self._operations[id(operation)][1]
        name = self.unique(operation.name)
        used = operation
        if name != operation.name:
            used = copy.copy(operation)
            used.name = name
            forget_calls(used)
        self._operations[id(operation)] = operation, used
        return used

    def carry_weights(self, values: Callable[[Any], list[Any]] | None = None) -> None:
        """Sets the weights of all copies from their originals, once the copies are built.

        Args:
            values: Takes an original layer and returns the weights of its copy; None: unchanged.
        """
        for layer, copied in self._copies.values():
            if copied is not layer:
                new = layer.get_weights() if values is None else values(layer)
                check_slices(copied, new)
                copied.set_weights(new)
                refresh_normalization(copied)
        for layer, weights in self._later:
            layer.set_weights(weights)

    def set_later(self, layer: Any, values: list[Any]) -> None:
        """Has :meth:`carry_weights` set the weights of a layer that is not a copy."""
        self._later.append((layer, values))

    def unique(self, name: str) -> str:
        """Returns the name, with a number appended if it was returned before."""
        free = name
        while free in self._names:
            self._names[name] += 1
            free = f"{name}_{self._names[name]}"
        self._names[free] += 1
        return free

    def unique_part(self, part: str) -> str:
        """Returns the name of a part of a layer, unique, and that of no layer of the model.

        Args:
            part: The name that the part should have.
        """
        free, number = part, 0
        while free in self._kept_names:
            number += 1
            free = f"{part}_{number}"
        return self.unique(free)


def refresh_normalization(model: keras.layers.Layer) -> None:
    """Updates the state that adapted Normalization layers derive from their weights.

    Keras derives it when the layer is adapted; setting the weights alone does not change it.
    """
    import keras

    for layer in all_layers(model):
        if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
            layer.finalize_state()


def _walk_into(
    functional: Any,
    inputs: tuple[Value, ...],
    prefix: str,
    calls: list[Call],
    training: bool | None = None,
) -> tuple[Value, ...]:
    known = {id(t): value for t, value in zip(functional.inputs, inputs, strict=True)}
    for node in nodes(functional):
        call_inputs = tuple(known[id(tensor)] for tensor in node.input_tensors)
        name = prefix + node.operation.name
        inner = followed_graph(node.operation)
        if inner is None:
            inner = unfold(node)
        if inner is None:
            inner = opened_call(node)
        if inner is None:
            inner = opened_block(node)
        if inner is not None and len(inner.inputs) == len(call_inputs):
            mode = node.arguments.kwargs.get("training", training)
            outputs = _walk_into(inner, call_inputs, f"{name}/", calls, mode)
        else:
            shapes = output_shapes(node, [value.shape for value in call_inputs])
            outputs = tuple(
                Value(shape, str(tensor.dtype))
                for shape, tensor in zip(shapes, node.outputs, strict=True)
            )
            calls.append(Call(name, node.operation, call_inputs, outputs, node, training))
        known.update({id(t): value for t, value in zip(node.outputs, outputs, strict=True)})
    return tuple(known[id(tensor)] for tensor in functional.outputs)


def _value(tensor: Any) -> Value:
    return Value(tuple(tensor.shape), str(tensor.dtype))
