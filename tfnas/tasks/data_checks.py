"""Checks of inputs and targets against a model and its losses, before long work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.data.checked_arrays import described
from tfnas.data.examples import Examples, ExampleSet, leaves
from tfnas.data.model_inputs import fits
from tfnas.graph.output_names import by_output, output_names

if TYPE_CHECKING:
    import keras

_SPARSE = "sparsecategoricalcrossentropy"
# Losses that compare each number of a target with one of the output, by `_loss_name`.
_ELEMENTWISE = {
    "mse",
    "meansquarederror",
    "mae",
    "meanabsoluteerror",
    "mape",
    "meanabsolutepercentageerror",
    "msle",
    "meansquaredlogarithmicerror",
    "huber",
    "logcosh",
    "poisson",
    "bce",
    "binarycrossentropy",
    "binaryfocalcrossentropy",
    "categoricalcrossentropy",
    "categoricalfocalcrossentropy",
    "kldivergence",
    "cosinesimilarity",
    "hinge",
    "squaredhinge",
}
CHECKED = 4096  # examples of data in batches whose labels are checked


def check_inputs(model: keras.Model, few: Examples, part: str) -> None:
    """Checks that the inputs of a few examples fit a model.

    Args:
        model: The model.
        few: The examples.
        part: The part of the data that they are of, for the message.

    Raises:
        ValueError: There are more or fewer inputs, or one has another shape.
    """
    expected = _inputs(model)
    columns = _columns(few.x, list(expected), part)
    for name, array in columns.items():
        shape, own = tuple(expected[name].shape[1:]), np.shape(array)[1:]
        if not fits(own, shape) and not (shape in ((), (1,)) and own in ((), (1,))):
            raise ValueError(
                f"inputs of the {part} part must fit the model: an example of {name!r} must have "
                f"the shape {shape}, got {own}"
            )


def _inputs(model: keras.Model) -> dict[str, Any]:
    return {each.name: each for each in model.inputs}


def _columns(x: Any, names: list[str], part: str) -> dict[str, Any]:
    """Returns the array of each input, by the name of the model's input."""
    if isinstance(x, dict):
        if missing := [name for name in names if name not in x]:
            known = ", ".join(map(str, x))
            raise ValueError(
                f"inputs of the {part} part must hold {missing[0]!r}, an input of the model, got "
                f"{known}"
            )
        return {name: x[name] for name in names}
    arrays = leaves(x)
    if len(arrays) != len(names):
        raise ValueError(
            f"inputs of the {part} part must be {len(names)} arrays, one for each of "
            f"{', '.join(names)}, got {len(arrays)}"
        )
    return dict(zip(names, arrays, strict=True))


def check_one_target(y: Any, model: keras.Model) -> None:
    """Checks that the targets of a model's one output are an array.

    Args:
        y: The targets.
        model: The model.

    Raises:
        ValueError: They are in a list, a tuple or a dictionary.
    """
    if isinstance(y, dict | list | tuple) and len(model.outputs) == 1:
        raise ValueError(
            f"targets of a model with one output must be an array, got {described(y)}: "
            f"{'y' if not isinstance(y, dict) else 'the array'} instead of "
            f"{'[y]' if not isinstance(y, dict) else 'the dictionary'}"
        )


def check_targets(
    losses: Mapping[str, Any], model: keras.Model, examples: ExampleSet, part: str
) -> None:
    """Checks that targets have the shape of their output, and that classes are those of a model.

    Keras' losses stretch an axis of one number to any size, so a wrong shape is no error there.

    Args:
        losses: Loss of each output that has one.
        model: The model.
        examples: The examples; the first ones are checked where they are in batches.
        part: The part of the data that they are of, for the message.

    Raises:
        ValueError: Targets have another shape than their output, or a label is none of the classes.
    """
    if not losses:
        return
    few = examples if isinstance(examples, Examples) else examples.first(CHECKED)
    names = output_names(model)
    targets = by_output(few.y, names, f"targets of the {part} part")
    for name, loss in losses.items():
        if loss is None:
            continue
        if name not in targets:
            raise ValueError(f"targets of the {part} part must hold {name!r}, which has a loss")
        output, labels = model.outputs[names.index(name)], targets[name]
        if isinstance(labels, dict | list | tuple):
            continue
        if _loss_name(loss) == _SPARSE:
            _check_labels(np.asarray(labels), int(output.shape[-1]), loss, name, part)
        elif _loss_name(loss) in _ELEMENTWISE:
            _check_shape(np.shape(labels)[1:], tuple(output.shape[1:]), name, part)


def _check_shape(
    own: tuple[int, ...], expected: tuple[int | None, ...], name: str, part: str
) -> None:
    """Raises ValueError where targets differ from the output by more than a last axis of 1."""
    if fits(own, expected) or fits((*own, 1), expected) or fits(own, (*expected, 1)):
        return
    raise ValueError(
        f"targets of the {part} part must have the shape of the output {name!r}: an example must "
        f"have {expected}, got {own}"
    )


def _loss_name(loss: Any) -> str:
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    return str(name).replace("_", "").lower()


def _check_labels(labels: np.ndarray, classes: int, loss: Any, name: str, part: str) -> None:
    """Raises ValueError where a label is no whole number from 0 to below the number of classes."""
    ignored = getattr(loss, "ignore_class", None)
    counted = labels if ignored is None else labels[labels != ignored]
    if not counted.size:
        return
    if not np.issubdtype(labels.dtype, np.number):
        raise ValueError(
            f"targets of the {part} part must be numbers of classes for {name!r}, got "
            f"{labels.dtype}"
        )
    low, high = counted.min(), counted.max()
    if low < 0 or high >= classes or not np.all(counted == np.floor(counted)):
        bad = next(v for v in counted.ravel() if v < 0 or v >= classes or v != np.floor(v))
        raise ValueError(
            f"targets of the {part} part must be whole numbers from 0 to {classes - 1} for "
            f"{name!r}, which has {classes} classes, got {bad}"
        )
