"""Whether inputs are those that a model takes, said before long work."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.data.examples import Nested, leaves

if TYPE_CHECKING:
    import keras


def fits(shape: tuple[int | None, ...], form: tuple[int | None, ...]) -> bool:
    """Returns whether a shape is of a form in which sizes may be open.

    Example:
        >>> fits((3, 8), (None, 8)), fits((3, 8), (None, 8, 1)), fits((3, 8), (4, 8))
        (True, False, False)

    Args:
        shape: The shape.
        form: The form; None stands for any size.
    """
    return len(shape) == len(form) and all(
        size in (None, actual) for size, actual in zip(form, shape, strict=True)
    )


@dataclasses.dataclass(frozen=True)
class ModelInput:
    """An input of a model.

    Args:
        name: Its name, or its key where the model takes a dictionary.
        shape: Its shape without the batch; None: any size.
        dtype: Name of its type; "": not known.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def fitted(self, array: np.ndarray, what: str) -> np.ndarray:
        """Returns an array of this input, with or without a last axis of 1 as Keras' models do.

        Args:
            array: The array, (examples, ...).
            what: Name of the argument, for the error message.

        Raises:
            ValueError: It has another shape, is of single examples, or holds strings for numbers.
        """
        own = array.shape[1:]
        if not fits(own, self.shape) and own[-1:] == (1,) and fits(own[:-1], self.shape):
            array = array[..., 0]
        elif not fits(own, self.shape) and fits((*own, 1), self.shape):
            array = array[..., None]
        elif not fits(own, self.shape):
            sizes = "".join(f", {'?' if size is None else size}" for size in self.shape)
            single = array.ndim and fits(array.shape, self.shape)
            raise ValueError(
                f"x of {what} must have the shape (examples{sizes}{'' if sizes else ','}) for "
                f"input {self.name!r}, got {array.shape}"
                + (", a single example: data must be in batches" if single else "")
            )
        if self.dtype and (array.dtype.kind in "OSU") != (self.dtype == "string"):
            raise ValueError(
                f"x of {what} must hold {'strings' if self.dtype == 'string' else 'numbers'} for "
                f"input {self.name!r}, got {array.dtype}"
            )
        return array


@dataclasses.dataclass(frozen=True)
class Signature:
    """The inputs and outputs of something that is no Keras model, such as a `.tflite` file.

    Args:
        inputs: Its inputs.
        outputs: Its outputs, described as the inputs are.
    """

    inputs: tuple[ModelInput, ...]
    outputs: tuple[ModelInput, ...]


def model_inputs(model: keras.Model | Signature) -> tuple[ModelInput, ...]:
    """Returns the inputs of a model.

    Args:
        model: A Keras 3 model, or the signature of a file.

    Returns:
        Its inputs; none where it does not know their names, as a subclassed model of a single
        array, or where they are nested more than once.
    """
    from tfnas.keras_private import build_shapes, input_structure, recorded_graph

    if isinstance(model, Signature):
        return model.inputs
    graph = recorded_graph(model)
    if graph is not None:
        return _described(input_structure(graph), graph.inputs)
    shapes = build_shapes(model)
    if not isinstance(shapes, dict) or not all(isinstance(s, tuple) for s in shapes.values()):
        return ()
    # Sizes are those of the first call alone; the model may take others.
    return tuple(ModelInput(str(n), (None,) * len(each), "") for n, each in shapes.items())


def model_outputs(model: keras.Model | Signature) -> tuple[ModelInput, ...]:
    """Returns the outputs of a model, described as its inputs.

    Args:
        model: A Keras 3 model, or the signature of a file.
    """
    from tfnas.keras_private import output_structure, recorded_graph

    if isinstance(model, Signature):
        return model.outputs
    graph = recorded_graph(model)
    if graph is None:
        return ()
    return _described(output_structure(graph), graph.outputs, graph.output_names)


def has_output_names(model: keras.Model | Signature) -> bool:
    """Whether a model returns a dictionary.

    Args:
        model: A Keras 3 model, or the signature of a file, whose outputs are a list.
    """
    from tfnas.keras_private import output_structure, recorded_graph

    if isinstance(model, Signature):
        return False
    graph = recorded_graph(model)
    return graph is not None and isinstance(output_structure(graph), dict)


def _described(
    structure: Any, tensors: Sequence[Any], names: Sequence[str] | None = None
) -> tuple[ModelInput, ...]:
    if isinstance(structure, dict):
        pairs = list(structure.items())
    else:
        pairs = list(zip(names or [each.name for each in tensors], tensors, strict=True))
        nested = structure if isinstance(structure, list | tuple) else [structure]
        pairs = pairs if all(hasattr(each, "shape") for each in nested) else []
    if not all(hasattr(tensor, "shape") for _, tensor in pairs):
        return ()
    return tuple(
        ModelInput(str(name), tuple(tensor.shape[1:]), str(tensor.dtype)) for name, tensor in pairs
    )


def inputs_fitting(model: keras.Model | Signature, what: str) -> Callable[[Nested], Nested] | None:
    """Returns a function that checks inputs and returns them as a model takes them.

    Args:
        model: A Keras 3 model, or the signature of a file.
        what: Name of the argument of the data, for error messages.

    Returns:
        A function of nested inputs, (examples, ...), which raises ValueError where they are other
        ones than the model's; None where the model does not know its inputs.
    """
    inputs = model_inputs(model)
    return (lambda x: fitted_inputs(inputs, x, what)) if inputs else None


def fitted_inputs(inputs: tuple[ModelInput, ...], x: Nested, what: str) -> Nested:
    """Returns inputs as a model takes them.

    Args:
        inputs: The inputs of the model.
        x: An array (examples, ...), or a list or dictionary of such arrays.
        what: Name of the argument of the data, for error messages.

    Raises:
        ValueError: They are other inputs, or have other shapes.
    """
    names = [each.name for each in inputs]
    if isinstance(x, dict):
        if set(x) != set(names):
            raise ValueError(f"x of {what} must hold the inputs {names}, got {sorted(map(str, x))}")
        by_name = {each.name: each for each in inputs}
        return {key: by_name[key].fitted(array, what) for key, array in x.items()}
    columns = leaves(x)
    if len(columns) != len(inputs):
        hint = ": stack single examples in one array" if len(columns) > 10 * len(inputs) else ""
        raise ValueError(
            f"x of {what} must hold {len(inputs)} input{'s' * (len(inputs) != 1)}, {names}, got "
            f"{len(columns)}{hint}"
        )
    if not isinstance(x, list | tuple):
        return inputs[0].fitted(x, what)
    if any(isinstance(each, dict | list | tuple) for each in x):
        raise ValueError(f"x of {what} must be a list of arrays for {names}, got a deeper nest")
    return type(x)(each.fitted(a, what) for each, a in zip(inputs, x, strict=True))
