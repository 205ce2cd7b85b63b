"""Converts models between Keras 3 and tf_keras: `to_tf_keras` and `from_tf_keras`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tfnas.graph.model_class import check_no_own_steps
from tfnas.legacy import configs, operations
from tfnas.legacy.environment import tf_keras
from tfnas.legacy.functional_steps import (
    Graph,
    GraphStep,
    flatten,
    map_structure,
    read_keras,
    read_tf_keras,
)
from tfnas.legacy.output_comparison import Tap, check_equal
from tfnas.legacy.tf_keras_private import producer

if TYPE_CHECKING:
    import keras


def to_tf_keras(model: keras.Model, *, check: bool = True) -> Any:
    """Converts a Keras 3 model to tf_keras, with the same layers, names and weights.

    Nested models, shared layers, several inputs and outputs, `x + y` and common `keras.ops` are
    supported. Initializers, regularizers, constraints and the compiled state are dropped.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="d")])
        >>> tfnas.legacy.to_tf_keras(model).layers[0].name
        'd'

    Args:
        model: A built functional or Sequential Keras 3 model.
        check: Whether to compare both models on random inputs.

    Returns:
        An uncompiled tf_keras model.

    Raises:
        ValueError: It is not such a model, or of a class with its own `train_step`; a layer has no
            counterpart (the message names it); or, with `check`, the outputs differ by more than
            1e-4 of their scale (the message names the first layer that differs).
        ImportError: tf_keras is not installed.
    """
    import keras

    _check_model(model, keras, "a built functional or Sequential Keras 3 model", read_keras)
    return _convert(model, _to_tf_keras(), check)


def from_tf_keras(model: Any, *, check: bool = True) -> keras.Model:
    """Converts a tf_keras model to Keras 3, with the same layers, names and weights.

    A "/" in a name, which Keras 3 forbids, becomes "_".

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="d")])
        >>> old = tfnas.legacy.to_tf_keras(model)
        >>> tfnas.legacy.from_tf_keras(old).layers[0].name
        'd'

    Args:
        model: A built functional or Sequential tf_keras model.
        check: Whether to compare both models on random inputs.

    Returns:
        An uncompiled Keras 3 model.

    Raises:
        ValueError: It is not such a model, or of a class with its own `train_step`; a layer has no
            counterpart (the message names it); or, with `check`, the outputs differ by more than
            1e-4 of their scale (the message names the first layer that differs).
        ImportError: tf_keras is not installed.
    """
    expected = "a built functional or Sequential tf_keras model"
    _check_model(model, tf_keras(), expected, read_tf_keras)
    return _convert(model, _from_tf_keras(), check)


def is_tf_keras(model: object) -> bool:
    """Returns whether a model is a tf_keras model; does not import tf_keras.

    Example:
        >>> import tfnas
        >>> tfnas.legacy.is_tf_keras("model")
        False

    Args:
        model: Anything.
    """
    import sys

    return "tf_keras" in sys.modules and isinstance(model, tf_keras().Model)


def flattened(model: Any, split: Callable[[Any], Any]) -> Any:
    """Converts a Keras 3 model to a tf_keras model without nested models, for tfmot.

    Args:
        model: A built functional or Sequential Keras 3 model.
        split: Takes a tf_keras layer, may remove its activation, and returns a separate layer
            for it, or None.

    Returns:
        An uncompiled tf_keras model.

    Raises:
        ValueError: As for `to_tf_keras`.
    """
    import keras

    _check_model(model, keras, "a built functional or Sequential Keras 3 model", read_keras)
    apply = functools.partial(operations.to_tf_keras, for_tfmot=True)
    direction = dataclasses.replace(_to_tf_keras(), split=split, apply=apply)
    return _convert(model, direction, True)


@dataclasses.dataclass(frozen=True)
class Direction:
    """The functions of one direction of conversion.

    Args:
        source: The library of the original model.
        target: The library of the converted model.
        read: Model or layer -> its graph, or None where it has none.
        convert: (layer, name) -> converted layer.
        apply: (operation, args, kwargs, name) -> outputs of its counterpart.
        is_operation: Whether the layer of a step is an operation.
        name: Name -> name that the target library allows.
        split: Converted layer -> layer to put after it, or None; with it, nested models are
            flattened.
    """

    source: Any
    target: Any
    read: Callable[[Any], Graph | None]
    convert: Callable[[Any, str], Any]
    apply: Callable[[Any, Any, Any, str], Any]
    is_operation: Callable[[Any], bool]
    name: Callable[[str], str] = str
    split: Callable[[Any], Any] | None = None


def _to_tf_keras() -> Direction:
    import keras

    return Direction(
        keras,
        tf_keras(),
        read_keras,
        configs.to_tf_keras,
        operations.to_tf_keras,
        lambda layer: not isinstance(layer, keras.Layer),
    )


def _from_tf_keras() -> Direction:
    import keras

    return Direction(
        tf_keras(),
        keras,
        read_tf_keras,
        configs.from_tf_keras,
        operations.from_tf_keras,
        operations.is_operation_layer,
        lambda name: name.replace("/", "_"),
    )


def _check_model(model: Any, library: Any, expected: str, read: Any) -> None:
    if not isinstance(model, library.Model) or not model.built or read(model) is None:
        name = getattr(model, "name", model)
        kind = f"{type(model).__module__}.{type(model).__name__}"
        raise ValueError(f"model must be {expected}, got {name!r} of type {kind}")
    check_no_own_steps(model, "the conversion between Keras 3 and tf_keras")


def _convert(model: Any, direction: Direction, check: bool) -> Any:
    conversion = _Conversion(direction)
    converted = conversion.model(model)
    conversion.copy_weights()
    if check:
        check_equal(model, converted, conversion.taps)
    return converted


class _Conversion:
    """The conversion of one model; a layer that is used twice is converted once."""

    def __init__(self, direction: Direction):
        self.direction = direction
        self.layers: dict[int, Any] = {}
        self.pairs: list[tuple[Any, Any]] = []
        self.taps: list[Tap] = []
        self.names: set[str] = set()

    def model(self, model: Any, outermost: bool = True) -> Any:
        graph = self.direction.read(model)
        assert graph is not None
        name = self.direction.name(model.name)
        if isinstance(model, self.direction.source.Sequential) and self.direction.split is None:
            return self._sequential(model, graph, name, outermost)
        tensors = {id(tensor): self._input(tensor) for tensor in flatten(graph.inputs)}
        self._run(graph, tensors, outermost)
        inputs = map_structure(graph.inputs, lambda tensor: tensors[id(tensor)])
        outputs = map_structure(graph.outputs, lambda tensor: tensors[id(tensor)])
        return self.direction.target.Model(inputs, outputs, name=name)

    def _sequential(self, model: Any, graph: Graph, name: str, outermost: bool) -> Any:
        inputs = [self._input(tensor) for tensor in flatten(graph.inputs)]
        converted = self.direction.target.Sequential(inputs[:1], name=name)
        for layer in model.layers:
            converted.add(self._layer(layer, ""))
            if outermost:
                self.taps.append(Tap(layer.name, layer.output, converted.layers[-1].output))
        return converted

    def _input(self, tensor: Any) -> Any:
        name = self._unique_name(producer(tensor).name, "")
        return self.direction.target.Input(
            tuple(tensor.shape[1:]), tensor.shape[0], dtype=_dtype(tensor), name=name
        )

    def _run(
        self, graph: Graph, tensors: dict[int, Any], outermost: bool, prefix: str = ""
    ) -> None:
        for step in graph.steps:
            outputs = self._step(step, tensors, prefix)
            for old, new in zip(step.outputs, outputs, strict=True):
                tensors[id(old)] = new
                if outermost:
                    self.taps.append(Tap(step.layer.name, old, new))

    def _step(self, step: GraphStep, tensors: dict[int, Any], prefix: str) -> list[Any]:
        args, kwargs = map_structure(
            (tuple(step.args), dict(step.kwargs)), lambda value: tensors.get(id(value), value)
        )
        kwargs = {key: value for key, value in kwargs.items() if value is not None}
        inner = self.direction.read(step.layer)
        if inner is not None and self.direction.split:
            return self._inline(step.layer.name, inner, args)
        if self.direction.is_operation(step.layer):
            name = self._unique_name(step.layer.name, prefix)
            return flatten(self.direction.apply(step.layer, args, kwargs, name))
        layer = self._layer(step.layer, prefix)
        activation = self.direction.split(layer) if self.direction.split else None
        outputs = layer(*args, **kwargs)
        return flatten(outputs if activation is None else activation(outputs))

    def _inline(self, name: str, inner: Graph, args: Any) -> list[Any]:
        """Runs the steps of a nested model as steps of the outer one."""
        tensors = dict(zip(map(id, flatten(inner.inputs)), flatten(args[0]), strict=True))
        self._run(inner, tensors, False, f"{name}_")
        return [tensors[id(tensor)] for tensor in flatten(inner.outputs)]

    def _layer(self, layer: Any, prefix: str) -> Any:
        if id(layer) not in self.layers:
            if self.direction.read(layer) is not None:
                converted = self.model(layer, outermost=False)
            else:
                converted = self.direction.convert(layer, self._unique_name(layer.name, prefix))
                self.pairs.append((layer, converted))
            self.layers[id(layer)] = converted
        return self.layers[id(layer)]

    def _unique_name(self, name: str, prefix: str) -> str:
        """The name, with a prefix if layers of a flattened model have the same one."""
        name = self.direction.name(name)
        name = f"{prefix}{name}" if self.direction.split and name in self.names else name
        self.names.add(name)
        return name

    def copy_weights(self) -> None:
        for old, new in self.pairs:
            _copy(old, new)


def _copy(old: Any, new: Any) -> None:
    values = old.get_weights()
    shapes = [tuple(weight.shape) for weight in new.weights]
    if [value.shape for value in values] != shapes:
        raise ValueError(
            f"layer {old.name!r} ({type(old).__name__}) can't be converted: its weights have "
            f"the shapes {[value.shape for value in values]}, its counterpart's {shapes}"
        )
    new.set_weights(values)
    if hasattr(
        new, "finalize_state"
    ):  # Normalization computes with values derived from its weights
        new.finalize_state()


def _dtype(tensor: Any) -> str:
    dtype = tensor.dtype
    return dtype if isinstance(dtype, str) else dtype.name
