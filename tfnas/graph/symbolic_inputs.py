"""Symbolic inputs of a model, from its data, a shape, or what it was built with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfnas.data.reading import arrays
from tfnas.data.representative_dataset import is_representative_dataset, representative_arrays
from tfnas.keras_private import build_shapes, input_structure, recorded_graph

if TYPE_CHECKING:
    import keras


def symbolic_inputs(model: keras.Model, data: Any, input_shape: Any) -> Any:
    """Returns symbolic inputs in the structure that a model takes.

    Args:
        model: A Keras 3 model.
        data: Data that shows shapes and types; None: none.
        input_shape: Shapes without the batch; None: those of the data, else those that the model
            was built with.

    Raises:
        ValueError: The shapes are not known, or are no shapes.
    """
    import keras

    graph = recorded_graph(model)
    if graph is not None and input_shape is None:  # functional, with a call() of its own
        return keras.tree.map_structure(
            lambda t: keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name),
            input_structure(graph),
        )
    if input_shape is not None:
        shapes, dtypes = parsed_shapes(input_shape), None
    elif data is not None:
        shapes, dtypes = _shapes_of_data(data)
    else:
        shapes, dtypes = build_shapes(model), None
    if shapes is None:
        raise ValueError(
            f"model must be built, got {model.name!r}: start it with keras.Input, call it once on "
            "a batch, or pass tfnas.as_functional(model, input_shape=(height, width, channels))"
        )
    dtype = model.input_dtype if hasattr(model, "input_dtype") else keras.config.floatx()

    def symbolic(path: tuple[Any, ...], shape: Any) -> Any:
        name = str(path[-1]) if path and isinstance(path[-1], str) else None
        found = dtype if dtypes is None else dtypes[path]
        return keras.Input(batch_shape=(None, *shape), dtype=found, name=name)

    return _map_shapes(symbolic, shapes)


def _map_shapes(function: Any, nested: Any, path: tuple[Any, ...] = ()) -> Any:
    """Maps the shapes in a nested structure, which are tuples themselves."""
    if isinstance(nested, Mapping):
        return {name: _map_shapes(function, each, (*path, name)) for name, each in nested.items()}
    if isinstance(nested, list):
        return [_map_shapes(function, each, (*path, i)) for i, each in enumerate(nested)]
    return function(path, nested)


def parsed_shapes(input_shape: Any) -> Any:
    """Returns the argument `input_shape` as nested dictionaries and lists of tuples.

    Args:
        input_shape: A shape without the batch, or a list or dictionary of shapes.

    Raises:
        ValueError: It is something else.
    """
    if isinstance(input_shape, Mapping):
        return {str(name): parsed_shapes(each) for name, each in input_shape.items()}
    if not isinstance(input_shape, Sequence) or isinstance(input_shape, str):
        raise ValueError(f"input_shape must be a shape without the batch, got {input_shape!r}")
    if any(isinstance(each, Sequence | Mapping) for each in input_shape):
        return [parsed_shapes(each) for each in input_shape]
    sizes = tuple(input_shape)
    if not all(n is None or (isinstance(n, int) and n > 0) for n in sizes):
        raise ValueError(
            f"input_shape must hold whole numbers above 0 or None, got {input_shape!r}"
        )
    return sizes


def _shapes_of_data(data: Any) -> tuple[Any, dict[tuple[Any, ...], str]]:
    """Shapes without the batch and types of the inputs in data."""
    x = first_inputs(data, 1)
    dtypes: dict[tuple[Any, ...], str] = {}

    def shape(path: tuple[Any, ...], array: Any) -> tuple[int, ...]:
        kinds = {"string": "OSU", "int32": "iub"}
        dtypes[path] = next((n for n, kind in kinds.items() if array.dtype.kind in kind), "float32")
        return tuple(array.shape[1:])

    return _map_shapes(shape, x), dtypes


def first_inputs(data: Any, count: int) -> Any:
    """Returns the first inputs in data, with lists in place of tuples.

    Args:
        data: As for :func:`tfnas.data.batches`, or a TFLite representative dataset.
        count: Number of examples.

    Raises:
        ValueError: The data holds no example.
    """
    if is_representative_dataset(data):
        columns = representative_arrays(data, count)
        return columns[0] if isinstance(columns, list) and len(columns) == 1 else columns
    x, _ = arrays(data, count)
    return list(x) if isinstance(x, tuple) else x


def by_input_name(shapes: Any, names: list[str]) -> list[tuple[int | None, ...]]:
    """Returns a shape for each input.

    Args:
        shapes: What :func:`parsed_shapes` returned.
        names: Names of the inputs.

    Raises:
        ValueError: There is another number of shapes, or a name that is no input.
    """
    if isinstance(shapes, dict):
        if set(shapes) != set(names):
            raise ValueError(f"input_shape must name the inputs {names}, got {sorted(shapes)}")
        return [shapes[name] for name in names]
    several = shapes if isinstance(shapes, list) else [shapes]
    if len(several) != len(names):
        raise ValueError(f"input_shape must hold {len(names)} shapes, for {names}, got {shapes!r}")
    return several
