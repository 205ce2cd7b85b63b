"""The one form in which techniques, commands and conversion take a model: functional.

:func:`as_functional` returns a functional or Sequential model itself. A Sequential model without
an input is built by the shape of the data; a subclassed model is traced (see
:mod:`tfnas.graph.subclassed`) and compared with the original. Nested models need nothing: walking
a model opens them.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tfnas.data.model_inputs import fits
from tfnas.graph.fixed_sizes import with_sizes
from tfnas.graph.functional import LayerCopies, clone, rebuild
from tfnas.graph.model_class import own_steps
from tfnas.graph.registered_layers import is_custom, kind_of
from tfnas.graph.subclassed import CannotTrace, cause_of, is_subclassed, traced, trains_otherwise
from tfnas.graph.symbolic_inputs import by_input_name, first_inputs, parsed_shapes, symbolic_inputs
from tfnas.keras_private import (
    all_layers,
    built_by_first_batch,
    call_takes_training,
    child_layers,
    compiled_losses,
    compiled_metric_arguments,
    followed_graph,
    functional_inside,
    nodes,
)

if TYPE_CHECKING:
    import keras

    from tfnas.data.data_types import ExampleData
    from tfnas.data.representative_dataset import RepresentativeDataset

    Shape: TypeAlias = Sequence[int | None]
    InputShape: TypeAlias = Shape | Sequence[Shape] | Mapping[str, Shape]

_LOG = logging.getLogger(__name__)
_PROBE = 2  # examples with which an opened model is compared with its original
_CLOSE = 1e-4  # largest difference, relative to the largest output


def as_functional(
    model: keras.Model,
    data: ExampleData | RepresentativeDataset | None = None,
    *,
    input_shape: InputShape | None = None,
) -> keras.Model:
    """Returns a model as a functional one with the same layers, weights and compilation.

    Every technique does this first. Call it yourself to give shapes that a model leaves open: those
    of a Sequential model without `keras.Input`, of a subclassed model that was not called yet, or
    the length of a series that a conversion needs.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(2)])
        >>> tfnas.as_functional(model, input_shape=(8,)).output_shape
        (None, 2)

    Args:
        model: A Keras 3 model. A subclassed one has to compute with Keras layers and `keras.ops`
            alone. It is built in place where it was not.
        data: Inputs, or inputs and targets, that show the shapes: arrays (examples, ...), a
            `tf.data.Dataset` or a `keras.utils.PyDataset`.
        input_shape: Shape of an input without the batch; None in it: any size. For several
            inputs a list of shapes, or a dictionary by input name.

    Returns:
        The model itself, if it is functional or Sequential and has this shape, else a functional
        model of the same layers. What it learns the original learns.

    Raises:
        ValueError: The shapes are not known, or the model can't be traced; the message says why.
    """
    if _is_ready(model, input_shape):
        return model
    if own_steps(model) and followed_graph(model) is None:
        raise ValueError(
            f"model must follow its graph to be rebuilt with its own {own_steps(model)[0]}, got "
            f"{model.name!r} of class {type(model).__name__}, whose call() is its own: build it by "
            "super().__init__(inputs, outputs), or compress the model that it trains"
        )
    opened = opened_model(model, data, input_shape)
    if is_subclassed(model) and trains_otherwise(model, opened):
        _LOG.warning(
            "model %r computes other layers in training: opened, it trains with those of inference",
            model.name,
        )
    return compiled_as(model, opened)


def opened_model(
    model: keras.Model,
    data: ExampleData | RepresentativeDataset | None = None,
    input_shape: InputShape | None = None,
) -> keras.Model:
    """Returns a functional form of a model for counting and conversion, not for training.

    Args:
        model: As for :func:`as_functional`; it may train in its own way.
        data: As there.
        input_shape: As there.

    Raises:
        ValueError: As there.
    """
    if _is_ready(model, input_shape):
        return model
    if followed_graph(model) is not None:
        return _reconnected(model, input_shape)
    return _opened(model, data, input_shape)


def copyable_form(
    model: keras.Model, data: ExampleData | RepresentativeDataset | None = None
) -> keras.Model:
    """Returns a model of which :func:`~tfnas.graph.functional.clone` returns a copy.

    A subclassed model that has a `get_config` stays what it is, so that techniques of single
    weights need no graph.

    Args:
        model: A Keras 3 model.
        data: As for :func:`as_functional`.

    Raises:
        ValueError: It can neither be copied nor opened.
    """
    if not is_subclassed(model):
        return _with_copyable_layers(as_functional(model, data))
    if model.built:
        try:
            clone(model)
        except ValueError as error:
            return _opened_uncopyable(model, data, error)
        return model
    return as_functional(model, data)


def _with_copyable_layers(model: keras.Model) -> keras.Model:
    """The model itself; of blocks that can't be copied the layers inside, which can."""
    import keras

    if not isinstance(model, keras.Model):
        return model  # what uses it says why it is refused
    blocks = [layer for layer in all_layers(model) if is_custom(layer) and child_layers(layer)]
    if not blocks or not getattr(model, "built", False):
        return model
    try:
        clone(model)
    except ValueError as error:
        try:
            return _without_models_inside(model)
        except ValueError:  # a block is not opened, or a layer in it can't be copied either
            raise error from None
    return model


def _opened_uncopyable(model: keras.Model, data: Any, why: ValueError) -> keras.Model:
    """A model that can't be copied, opened; its own copies would need no graph."""
    try:
        opened = as_functional(model, data)
    except CannotTrace as error:
        raise CannotTrace(f"{why}; nor can it be opened: {error}") from why
    try:
        clone(opened)
    except ValueError:  # it holds models that can't be copied either
        return _without_models_inside(opened)
    return opened


def _without_models_inside(model: keras.Model) -> keras.Model:
    """A copy whose layers stand side by side, also those of models inside."""
    copies = LayerCopies()
    flat = rebuild(model, copies.call, class_of=model)
    copies.carry_weights()
    return flat


def opaque_form(
    model: keras.Model,
    data: ExampleData | RepresentativeDataset | None = None,
    input_shape: InputShape | None = None,
) -> keras.Model:
    """Returns a functional model with known inputs; one opaque layer where it can't be traced.

    Conversion needs the inputs of a model alone, not the layers inside.

    Args:
        model: As for :func:`as_functional`.
        data: As there.
        input_shape: As there.

    Raises:
        ValueError: The shapes are not known, or the model can't be called.
    """
    import keras

    try:
        return opened_model(model, data, input_shape)
    except CannotTrace as error:
        _LOG.info("%s", error)
    inputs = symbolic_inputs(model, data, input_shape)
    return keras.Model(inputs, model(inputs), name=model.name)


def _is_ready(model: Any, input_shape: Any) -> bool:
    """Whether a model is taken as it is; another kind of object is refused by what uses it."""
    import keras

    if not isinstance(model, keras.Model):
        return True
    return (
        followed_graph(model) is not None
        and input_shape is None
        and not built_by_first_batch(model)
    )


def _opened(model: keras.Model, data: Any, input_shape: Any) -> keras.Model:
    import keras

    inputs = symbolic_inputs(model, data, input_shape)
    if not is_subclassed(model):
        [tensor] = keras.tree.flatten(inputs)
        model.build(tuple(tensor.shape))
        if followed_graph(model) is None:
            raise CannotTrace(_no_trace(model, "a layer does not tell its output's shape"))
        return model
    try:
        if not model.built:
            _build(model, inputs)
        opened = traced(model, inputs)
        if data is None and (integers := _as_integers(opened, inputs)) is not None:
            inputs, opened = integers, traced(model, integers)
    except CannotTrace as error:
        raise CannotTrace(_no_trace(model, str(error))) from error
    _compare(model, opened, data)
    return opened


def _build(model: keras.Model, inputs: Any) -> None:
    """Builds the layers, whose weights a trace looks at."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns of what is an error here
        try:
            model(inputs)
        except Exception as error:  # anything that the user's code may raise
            raise CannotTrace(cause_of(error)) from error


def _no_trace(model: keras.Model, why: str) -> str:
    return (
        f"model must compute with Keras layers and keras.ops alone to be opened, got "
        f"{model.name!r} of class {type(model).__name__}: {why}. tfnas.prune, tfnas.cluster, "
        "tfnas.Distiller, tfnas.to_tflite and tfnas.verify take it as it is; the others need a "
        "functional model"
    )


def _as_integers(opened: keras.Model, inputs: Any) -> Any:
    """The same inputs, of integers where an Embedding reads them; None where none does."""
    import keras

    read = {
        id(tensor)
        for node in nodes(opened)
        if kind_of(type(node.operation)) in ("Embedding", "ReversibleEmbedding")
        for tensor in node.input_tensors
    }
    if not any(id(tensor) in read for tensor in opened.inputs):
        return None
    new = [
        keras.Input(
            batch_shape=tensor.shape,
            dtype="int32" if id(tensor) in read else tensor.dtype,
            name=tensor.name,
        )
        for tensor in opened.inputs
    ]
    return keras.tree.pack_sequence_as(inputs, new)


def _compare(model: keras.Model, opened: keras.Model, data: Any) -> None:
    """Raises CannotTrace where the opened model computes something else than its original."""
    import keras

    batch = _probe(opened, data)
    if batch is None:
        return
    structure = functional_inside(opened).input
    inputs = keras.tree.pack_sequence_as(structure, batch)
    expected = model(inputs, **_inference(model))
    try:
        traced_outputs = opened(inputs, training=False)
    except Exception as error:  # as of a constant for one example where the batch has several
        raise CannotTrace(_no_trace(model, cause_of(error))) from error
    expected, found = (
        [np.asarray(keras.ops.convert_to_numpy(each), np.float64) for each in keras.tree.flatten(r)]
        for r in (expected, traced_outputs)
    )
    for old, new in zip(expected, found, strict=True):
        bound = _CLOSE * max(1.0, float(np.abs(old).max(initial=0.0)))
        if old.shape != new.shape or not np.allclose(old, new, rtol=0, atol=bound, equal_nan=True):
            gap = "another shape" if old.shape != new.shape else f"{np.abs(old - new).max():.3g}"
            raise CannotTrace(_no_trace(model, f"its trace differs from it by {gap}"))


def _inference(model: keras.Model) -> dict[str, bool]:
    return {"training": False} if call_takes_training(model) else {}


def _probe(opened: keras.Model, data: Any) -> list[Any] | None:
    """A few inputs: of the data, else random ones; None where a size is open."""
    import keras

    if data is not None:
        found = keras.tree.flatten(first_inputs(data, _PROBE))
        if len(found[0]) < _PROBE and all(tensor.shape[0] is None for tensor in opened.inputs):
            # Of a single example a constant for one is no fault yet.
            found = [np.resize(each, (_PROBE, *np.shape(each)[1:])) for each in found]
        return [
            array if tensor.dtype == "string" else np.asarray(array).astype(tensor.dtype)
            for array, tensor in zip(found, opened.inputs, strict=True)
        ]
    rng, found = np.random.default_rng(0), []
    for tensor in opened.inputs:
        shape = (_PROBE, *tensor.shape[1:])
        if None in shape or tensor.dtype == "string":
            return None
        values = rng.normal(size=shape) if "float" in tensor.dtype else rng.integers(0, 2, shape)
        found.append(values.astype("float32" if "float" in tensor.dtype else tensor.dtype))
    return found


def _reconnected(model: keras.Model, input_shape: Any) -> keras.Model:
    """The layers of a functional or Sequential model behind inputs of other shapes."""

    graph = functional_inside(model)
    shapes = [(None, *t.shape[1:]) for t in graph.inputs]
    if input_shape is not None:
        named = parsed_shapes(input_shape)
        wanted = by_input_name(named, [t.name for t in graph.inputs])
        shapes = [(None, *each) for each in wanted]
        if [shape[1:] for shape in shapes] == [tuple(t.shape[1:]) for t in graph.inputs]:
            return model
    for shape, tensor in zip(shapes, graph.inputs, strict=True):
        own = tuple(tensor.shape[1:])
        if not fits(shape[1:], own):
            raise ValueError(
                f"input_shape must fit {own} of input {tensor.name!r}, got {shape[1:]}"
            )
    return with_sizes(model, shapes)


def compiled_as(model: keras.Model, opened: keras.Model) -> keras.Model:
    """Compiles a model as another one was, where it is not compiled yet; returns it.

    Args:
        model: The other model.
        opened: The model, of the same outputs; changed in place.
    """
    loss, weights = compiled_losses(model)
    if opened is model or opened.compiled or not getattr(model, "compiled", False) or loss is None:
        return opened
    opened.compile(
        optimizer=model.optimizer,
        loss=loss,
        loss_weights=weights,
        metrics=compiled_metric_arguments(model),
    )
    return opened
