"""Nests of arrays that users give: turned into NumPy arrays, and checked before long work."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfnas.data.examples import BATCH, Examples, Nested, leaves

_NUMBERS, _TEXTS = "biuf", "SU"


def as_arrays(nested: Any, what: str) -> Nested:
    """Returns a nest with a NumPy array for each leaf.

    Lists of numbers, strings and rows of them are arrays; lists of arrays stay lists, as in Keras.

    Example:
        >>> as_arrays({"a": [1, 2], "b": [np.zeros(2)]}, "x")
        {'a': array([1, 2]), 'b': [array([0., 0.])]}

    Args:
        nested: Arrays, tensors, tables of pandas or lists of numbers, in lists, tuples and
            dictionaries.
        what: What it is, for the error message.

    Raises:
        ValueError: A leaf is no array of numbers or strings with the examples first.
    """
    if isinstance(nested, dict):
        return {key: as_arrays(value, f"{what}[{key!r}]") for key, value in nested.items()}
    if isinstance(nested, tuple):
        return tuple(as_arrays(part, f"{what}[{i}]") for i, part in enumerate(nested))
    if isinstance(nested, list) and any(_is_array_or_dictionary(part) for part in nested):
        return [as_arrays(part, f"{what}[{i}]") for i, part in enumerate(nested)]
    return _array(nested, what)


def _is_array_or_dictionary(value: Any) -> bool:
    return isinstance(value, dict) or len(getattr(value, "shape", ())) > 0


def _array(value: Any, what: str) -> np.ndarray:
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O":
            array = _of_objects(array)
    except (ValueError, TypeError) as error:  # rows of several lengths, tensors without an array
        raise ValueError(
            f"{what} must be an array of numbers or strings, got {type(value).__name__}: {error}"
        ) from error
    if array.dtype.kind not in f"{_NUMBERS}{_TEXTS}O":
        raise ValueError(f"{what} must hold numbers or strings, got {array.dtype}")
    if not array.ndim:
        raise ValueError(
            f"{what} must hold the examples along its first axis, got a single "
            f"{type(value).__name__}"
        )
    return array


def _of_objects(array: np.ndarray) -> np.ndarray:
    """Returns numbers in an array of numbers; strings stay objects, which take less memory.

    Raises:
        ValueError: There are other objects, or both.
    """
    kinds = {type(value) for value in array.reshape(-1)}
    if kinds <= {str, bytes}:
        return array
    other = sorted(kind.__name__ for kind in kinds if not _is_number(kind))
    if other:
        raise ValueError(f"it holds {', '.join(other[:3])}")
    return np.array(array.tolist())


def _is_number(kind: type) -> bool:
    return issubclass(kind, bool | int | float | np.number | np.bool_)


def check_finite(nested: Nested, what: str) -> None:
    """Checks that all numbers are finite.

    Args:
        nested: Arrays, (examples, ...).
        what: What they are, for the error message.

    Raises:
        ValueError: NaN or infinity is among them.
    """
    if isinstance(nested, dict):
        for key, value in nested.items():
            check_finite(value, f"{what}[{key!r}]")
    elif isinstance(nested, list | tuple):
        for i, part in enumerate(nested):
            check_finite(part, f"{what}[{i}]")
    elif nested.dtype.kind == "f":
        for start in range(0, len(nested), BATCH):  # no second array of the size of the first
            finite = np.isfinite(nested[start : start + BATCH])
            if not finite.all():
                example = start + int(np.argmin(finite.reshape(len(finite), -1).all(axis=1)))
                raise ValueError(
                    f"{what} must hold finite numbers, got NaN or infinity in example {example}"
                )


def examples_of(item: Any, what: str) -> Examples:
    """Returns checked examples from a tuple of inputs, targets and perhaps weights.

    Example:
        >>> len(examples_of(([[1.0], [2.0]], [0, 1]), "train_data"))
        2

    Args:
        item: (x, y) or (x, y, sample_weight), in any nest of lists, tuples and dictionaries.
        what: Name of the argument, for the error message.

    Raises:
        ValueError: It is something else, the numbers of examples differ, there are none, or
            a number is not finite.
    """
    if not isinstance(item, tuple) or not 2 <= len(item) <= 3 or item[1] is None:
        raise ValueError(f"{what} must be (x, y) or (x, y, sample_weight), got {described(item)}")
    parts = [
        as_arrays(part, f"{name} of {what}")
        for name, part in zip(("x", "y", "sample_weight"), item, strict=False)
        if part is not None
    ]
    for name, part in zip(("x", "y", "sample_weight"), parts, strict=False):
        if not leaves(part):
            raise ValueError(f"{name} of {what} must hold at least one array, got {part!r}")
    try:
        examples = Examples(*parts)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    return checked_examples(examples, what)


def checked_examples(examples: Examples, what: str) -> Examples:
    """Returns examples after checking that there are some, with finite numbers.

    Args:
        examples: The examples.
        what: Name of the argument, for the error message.

    Raises:
        ValueError: There are none, or a number is not finite.
    """
    if not len(examples):
        raise ValueError(f"{what} must hold at least one example, got none")
    check_finite(examples.x, f"x of {what}")
    check_finite(examples.y, f"y of {what}")
    if examples.weights is not None:
        _check_weights(examples.weights, f"sample_weight of {what}")
    return examples


def has_weight(examples: Examples) -> bool:
    """Whether an example counts in a training: there are no weights, or one is above 0.

    Args:
        examples: The examples.
    """
    return examples.weights is None or any(np.any(array) for array in leaves(examples.weights))


def check_some_weight(weighty: bool, what: str) -> None:
    """Checks that the weights of all examples are not all 0.

    Args:
        weighty: Whether any is above 0.
        what: Name of the argument, for the error message.

    Raises:
        ValueError: They are: a training would learn nothing.
    """
    if not weighty:
        raise ValueError(f"sample_weight of {what} must hold a number above 0, got zeros only")


def _check_weights(nested: Nested, what: str) -> None:
    """Raises ValueError where a weight is no finite number >= 0."""
    check_finite(nested, what)
    for array in leaves(nested):
        if array.dtype.kind not in _NUMBERS:
            raise ValueError(f"{what} must hold numbers, got {array.dtype}")
        if array.size and array.min() < 0:
            example = int(np.argmin(array.reshape(len(array), -1).min(axis=1)))
            raise ValueError(
                f"{what} must hold numbers >= 0, got {array.min()} in example {example}"
            )


def described(item: Any) -> str:
    """Returns the kind of a value in few words, such as "a tuple of 4 parts"."""
    if isinstance(item, tuple | list | dict):
        return f"a {type(item).__name__} of {len(item)} part{'s' * (len(item) != 1)}"
    shape = getattr(item, "shape", None)
    of_shape = "" if shape is None else f" of shape {tuple(shape)}"
    return (
        f"{'an' if type(item).__name__[0] in 'aeiouAEIOU' else 'a'} {type(item).__name__}{of_shape}"
    )
