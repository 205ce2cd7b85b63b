"""TFLite's form of calibration data: a function that yields one example at a time.

`tf.lite.TFLiteConverter.representative_dataset` is a callable without arguments that returns an
iterator. Each item is one of these, and the first axis of every array is the batch:

- a list of arrays, one for each input of the model in the order of `model.inputs`. TensorFlow's
  converter takes lists in the order of the file's inputs, which is often alphabetical;
- a dictionary of arrays by input name;
- a tuple of a signature key (a string or None) and such a dictionary. A Keras model has a single
  signature, so the key is not used.

Code that converts with TensorFlow has such a function already, so tfnas takes it wherever it takes
calibration data.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

CALIBRATION_EXAMPLES = 500
Example = list[Any] | dict[str, Any] | tuple[str | None, dict[str, Any]]
RepresentativeDataset = Callable[[], Iterable[Example]]


def is_representative_dataset(data: object) -> bool:
    """Whether data has TFLite's form: a function, or a `tf.lite.RepresentativeDataset`."""
    return callable(getattr(data, "input_gen", data))


def representative_arrays(
    data: RepresentativeDataset, limit: int | None = None, what: str = "data"
) -> list[np.ndarray] | dict[str, np.ndarray]:
    """Reads a representative dataset into one array for each input.

    Example:
        >>> import numpy as np
        >>> def examples():
        ...     for value in range(3):
        ...         yield [np.full((1, 2), value)]
        >>> [array.shape for array in representative_arrays(examples)]
        [(3, 2)]

    Args:
        data: The function, or a `tf.lite.RepresentativeDataset`.
        limit: Number of examples to read at most; the rest is ignored. None: all examples, of
            which there may be at most 500, since a function can't say that it never ends.
        what: Name of the argument, for the error message.

    Returns:
        Arrays of shape (examples, ...): a list in the order of `model.inputs`, or a dictionary by
        input name, as the items are.

    Raises:
        ValueError: The function yields no example, too many of them, or something other than
            lists or dictionaries of arrays that fit together, or takes arguments. Errors that
            the function itself raises are not changed.
    """
    most = CALIBRATION_EXAMPLES if limit is None else limit
    items: list[dict[Any, np.ndarray]] = []
    count, by_name = 0, False
    signatures = set()
    for yielded in _iterated(data, what):
        signature, item = _without_signature(yielded)
        signatures.add(signature)
        if len(signatures) > 1:
            raise ValueError(
                f"{what} must yield examples of one signature, got {sorted(map(str, signatures))}"
            )
        if not isinstance(item, dict | list) or not item:
            raise ValueError(
                f"{what} must yield lists or dictionaries of arrays, got {type(item).__name__}"
            )
        by_name = isinstance(item, dict)
        pairs = item.items() if isinstance(item, dict) else enumerate(item)
        arrays = {key: np.asarray(value) for key, value in pairs}
        lengths = {array.shape[:1] for array in arrays.values()}
        if len(lengths) != 1 or lengths & {(), (0,)}:
            raise ValueError(
                f"{what} must yield arrays of equal batch size, at least 1, got the shapes "
                f"{[array.shape for array in arrays.values()]}"
            )
        if items and arrays.keys() != items[0].keys():
            raise ValueError(
                f"{what} must yield the same inputs each time, got {list(items[0])} and then "
                f"{list(arrays)}"
            )
        items.append(arrays)
        count += lengths.pop()[0]
        if count > most and limit is None:
            raise ValueError(
                f"{what} must end after at most {most} examples where it is a function, got more"
            )
        if count >= most and limit is not None:
            break
    if not items:
        raise ValueError(f"{what} must hold at least one example, got none")
    joined = {key: _joined([item[key] for item in items], key, what)[:most] for key in items[0]}
    return joined if by_name else list(joined.values())


def _without_signature(item: Any) -> tuple[str | None, Any]:
    """The signature key of an item and its arrays; None where the item has no key."""
    if isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], dict):
        key, arrays = item
        if key is None or isinstance(key, str):
            return key, arrays
    return None, item


def _iterated(data: RepresentativeDataset, what: str) -> Iterable[Any]:
    function = getattr(data, "input_gen", data)
    rule = f"{what} must be a function without arguments that returns an iterator, got {data!r}"
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions written in C have no signature
        signature = inspect.Signature()
    try:
        signature.bind()
    except TypeError as error:
        raise ValueError(f"{rule}: {error}") from error
    items = function()  # outside of any try: its own errors are the user's to see
    if not isinstance(items, Iterable):
        raise ValueError(f"{rule}, which returned {type(items).__name__}")
    return items


def _joined(parts: list[np.ndarray], key: int | str, what: str) -> np.ndarray:
    try:
        return np.concatenate(parts)
    except ValueError as error:
        raise ValueError(
            f"{what} must yield arrays of one shape for input {key!r}: {error}"
        ) from error
