"""Names of a model's outputs, and values by these names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


def output_names(model: keras.Model) -> list[str]:
    """Returns the names of a model's outputs, in the order in which Keras and its file have them.

    Those are the keys where the model returns a dictionary, else the names of the last layers.

    Example:
        >>> import keras
        >>> inputs = keras.Input((4,))
        >>> heads = {name: keras.layers.Dense(1)(inputs) for name in ("b", "a")}
        >>> output_names(keras.Model(inputs, heads))
        ['a', 'b']

    Args:
        model: A built model.
    """
    structure = getattr(model, "output", None)
    if isinstance(structure, dict):
        return sorted(structure)
    # A Sequential model has no names of outputs, and one output.
    return list(getattr(model, "output_names", ["output"]))


def name_outputs(model: keras.Model, names: Sequence[str] | None) -> None:
    """Gives the outputs of what was made of a model the names that losses and targets have.

    Keras takes the names of the last layers, which are those of a factor or of a rounding there.
    It reads them in `compile`, and does not save them.

    Example:
        >>> import keras
        >>> inputs = keras.Input((4,))
        >>> model = keras.Model(inputs, [keras.layers.Dense(1, name="head_last")(inputs)])
        >>> name_outputs(model, ["head"])
        >>> model.output_names
        ['head']

    Args:
        model: The new model; changed in place, unless its outputs have keys.
        names: The names, in the order of its outputs; None: those that it has.
    """
    own = getattr(model, "output_names", None)
    if not names or own is None or isinstance(model.output, dict) or len(own) != len(names):
        return
    if list(own) != list(names):
        model.output_names = list(names)


def by_output(nested: Any, names: Sequence[str], what: str = "y") -> dict[str, Any]:
    """Returns the values of outputs by their names.

    Example:
        >>> by_output([1, 2], ["a", "b"])
        {'a': 1, 'b': 2}

    Args:
        nested: A dictionary by name, which may leave some out; a list or tuple in the order of
            the names; or, where there is one output, its value.
        names: The names of the outputs.
        what: Name of the argument, for the error message.

    Raises:
        ValueError: There is another number of values, or a key that is no name.
    """
    if isinstance(nested, dict):
        if unknown := [key for key in nested if key not in names]:
            raise ValueError(f"{what} must name outputs of {', '.join(names)}, got {unknown[0]!r}")
        return {name: nested[name] for name in names if name in nested}
    values = list(nested) if isinstance(nested, list | tuple) else [nested]
    if len(values) != len(names):
        raise ValueError(
            f"{what} must hold a value for each of the outputs {', '.join(names)}, got "
            f"{len(values)}"
        )
    return dict(zip(names, values, strict=True))
