"""A model of one Keras made again in the other: `to_tf_keras` and `from_tf_keras`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from tfnas.legacy import configs, operations
from tfnas.legacy.environment import tf_keras
from tfnas.legacy.functional_steps import Graph, GraphStep, flat, mapped, read_keras, read_tf_keras
from tfnas.legacy.output_comparison import Tap, check_equal


def to_tf_keras(model: Any, *, check: bool = True) -> Any:
    """Makes a Keras 3 model again in tf_keras, with the same layers, names and weights.

    Nested models, shared layers, several inputs and outputs, `x + y` and common `keras.ops`
    are taken. Initializers, regularizers, constraints and the compiled state stay behind.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="d")])
        >>> tfnas.legacy.to_tf_keras(model).layers[0].name
        'd'

    Args:
        model: A built functional or Sequential Keras 3 model.
        check: Whether both models must agree on random inputs.

    Returns:
        An uncompiled tf_keras model.

    Raises:
        ValueError: It is not such a model, a layer has no counterpart (it is named), or,
            with `check`, the outputs differ by more than 1e-4 of their scale (the first
            layer that differs is named).
        ImportError: tf_keras is not installed.
    """
    import keras

    _check_model(model, keras, "a built functional or Sequential Keras 3 model", read_keras)
    return _bring(model, _to_side(), check)


def from_tf_keras(model: Any, *, check: bool = True) -> Any:
    """Makes a tf_keras model again in Keras 3, with the same layers, names and weights.

    A "/" in a name, which Keras 3 forbids, becomes "_".

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="d")])
        >>> old = tfnas.legacy.to_tf_keras(model)
        >>> tfnas.legacy.from_tf_keras(old).layers[0].name
        'd'

    Args:
        model: A built functional or Sequential tf_keras model.
        check: Whether both models must agree on random inputs.

    Returns:
        An uncompiled Keras 3 model.

    Raises:
        ValueError: It is not such a model, a layer has no counterpart (it is named), or,
            with `check`, the outputs differ by more than 1e-4 of their scale (the first
            layer that differs is named).
        ImportError: tf_keras is not installed.
    """
    what = "a built functional or Sequential tf_keras model"
    _check_model(model, tf_keras(), what, read_tf_keras)
    return _bring(model, _from_side(), check)


def is_tf_keras(model: Any) -> bool:
    """Whether this is a tf_keras model; false, without an import, where none was made.

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
    """Makes a Keras 3 model again in tf_keras without nested models, for tfmot.

    Args:
        model: A built functional or Sequential Keras 3 model.
        split: Takes off a tf_keras layer what shall be a layer of its own, and returns that
            layer, or None where it took nothing.

    Returns:
        An uncompiled tf_keras model.

    Raises:
        ValueError: As `to_tf_keras`.
    """
    import keras

    _check_model(model, keras, "a built functional or Sequential Keras 3 model", read_keras)
    apply = functools.partial(operations.to_tf_keras, for_tfmot=True)
    return _bring(model, dataclasses.replace(_to_side(), split=split, apply=apply), True)


@dataclasses.dataclass(frozen=True)
class Side:
    """What differs between the two directions.

    Args:
        source: The library that the model comes from.
        target: The library that it goes to.
        read: model -> graph, None for what is no model with known connections.
        make: (layer, name) -> layer.
        apply: (operation, args, kwargs, name) -> outputs.
        is_operation: Whether a node's layer is an operation.
        name: name -> name.
        split: layer -> layer to follow it, or None; where given, nested models are dissolved.
    """

    source: Any
    target: Any
    read: Callable[[Any], Graph | None]
    make: Callable[[Any, str], Any]
    apply: Callable[[Any, Any, Any, str], Any]
    is_operation: Callable[[Any], bool]
    name: Callable[[str], str] = str
    split: Callable[[Any], Any] | None = None


def _to_side() -> Side:
    import keras

    return Side(
        keras,
        tf_keras(),
        read_keras,
        configs.to_tf_keras,
        operations.to_tf_keras,
        lambda layer: not isinstance(layer, keras.Layer),
    )


def _from_side() -> Side:
    import keras

    return Side(
        tf_keras(),
        keras,
        read_tf_keras,
        configs.from_tf_keras,
        operations.from_tf_keras,
        operations.is_operation_layer,
        lambda name: name.replace("/", "_"),
    )


def _check_model(model: Any, library: Any, what: str, read: Any) -> None:
    if not isinstance(model, library.Model) or not model.built or read(model) is None:
        name = getattr(model, "name", model)
        kind = f"{type(model).__module__}.{type(model).__name__}"
        raise ValueError(f"model must be {what}, got {name!r} of type {kind}")


def _bring(model: Any, side: Side, check: bool) -> Any:
    work = _Rebuild(side)
    made = work.model(model)
    work.copy_weights()
    if check:
        check_equal(model, made, work.taps)
    return made


class _Rebuild:
    """One model on its way; a layer that is used twice is made once."""

    def __init__(self, side: Side):
        self.side = side
        self.made: dict[int, Any] = {}
        self.pairs: list[tuple[Any, Any]] = []
        self.taps: list[Tap] = []
        self.names: set[str] = set()

    def model(self, model: Any, outermost: bool = True) -> Any:
        graph = self.side.read(model)
        assert graph is not None
        name = self.side.name(model.name)
        if isinstance(model, self.side.source.Sequential) and self.side.split is None:
            return self._sequential(model, graph, name, outermost)
        known = {id(tensor): self._input(tensor) for tensor in flat(graph.inputs)}
        self._run(graph, known, outermost)
        inputs = mapped(graph.inputs, lambda tensor: known[id(tensor)])
        outputs = mapped(graph.outputs, lambda tensor: known[id(tensor)])
        return self.side.target.Model(inputs, outputs, name=name)

    def _sequential(self, model: Any, graph: Graph, name: str, outermost: bool) -> Any:
        inputs = [self._input(tensor) for tensor in flat(graph.inputs)]
        made = self.side.target.Sequential(inputs[:1], name=name)
        for layer in model.layers:
            made.add(self._layer(layer, ""))
            if outermost:
                self.taps.append(Tap(layer.name, layer.output, made.layers[-1].output))
        return made

    def _input(self, tensor: Any) -> Any:
        history = tensor._keras_history
        layer = history.layer if hasattr(history, "layer") else history.operation
        name = self._free(layer.name, "")
        return self.side.target.Input(
            tuple(tensor.shape[1:]), tensor.shape[0], dtype=_dtype(tensor), name=name
        )

    def _run(self, graph: Graph, known: dict[int, Any], outermost: bool, prefix: str = "") -> None:
        for step in graph.steps:
            outputs = self._step(step, known, prefix)
            for old, new in zip(step.outputs, outputs, strict=True):
                known[id(old)] = new
                if outermost:
                    self.taps.append(Tap(step.layer.name, old, new))

    def _step(self, step: GraphStep, known: dict[int, Any], prefix: str) -> list[Any]:
        args, kwargs = mapped(
            (tuple(step.args), dict(step.kwargs)), lambda value: known.get(id(value), value)
        )
        kwargs = {key: value for key, value in kwargs.items() if value is not None}
        inner = self.side.read(step.layer)
        if inner is not None and self.side.split:
            return self._dissolve(step.layer.name, inner, args)
        if self.side.is_operation(step.layer):
            name = self._free(step.layer.name, prefix)
            return flat(self.side.apply(step.layer, args, kwargs, name))
        made = self._layer(step.layer, prefix)
        rest = self.side.split(made) if self.side.split else None
        outputs = made(*args, **kwargs)
        return flat(outputs if rest is None else rest(outputs))

    def _dissolve(self, name: str, inner: Graph, args: Any) -> list[Any]:
        known = dict(zip(map(id, flat(inner.inputs)), flat(args[0]), strict=True))
        self._run(inner, known, False, f"{name}_")
        return [known[id(tensor)] for tensor in flat(inner.outputs)]

    def _layer(self, layer: Any, prefix: str) -> Any:
        if id(layer) not in self.made:
            if self.side.read(layer) is not None:
                made = self.model(layer, outermost=False)
            else:
                made = self.side.make(layer, self._free(layer.name, prefix))
                self.pairs.append((layer, made))
            self.made[id(layer)] = made
        return self.made[id(layer)]

    def _free(self, name: str, prefix: str) -> str:
        """The name, made unique where a dissolved model's layers need it."""
        name = self.side.name(name)
        name = f"{prefix}{name}" if self.side.split and name in self.names else name
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
            f"layer {old.name!r} ({type(old).__name__}) can't be brought over: its weights have "
            f"the shapes {[value.shape for value in values]}, its counterpart's {shapes}"
        )
    new.set_weights(values)
    if hasattr(new, "finalize_state"):  # Normalization computes with copies of its weights
        new.finalize_state()


def _dtype(tensor: Any) -> str:
    dtype = tensor.dtype
    return dtype if isinstance(dtype, str) else dtype.name
