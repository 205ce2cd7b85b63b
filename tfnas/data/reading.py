"""Reads inputs and targets of any supported kind as NumPy arrays.

Data may be arrays, a `tf.data.Dataset` or a `keras.utils.PyDataset` everywhere in tfnas:
:func:`batches` and :func:`arrays` read all of them.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np

from tfnas.data.examples import joined, leaves, mapped, scattered

if TYPE_CHECKING:
    import keras

    from tfnas.data.data_types import Arrays, ExampleData

Batch: TypeAlias = tuple[Any, Any, Any]  # inputs, targets or None, weights or None


def batches(data: ExampleData, what: str = "data") -> Iterator[tuple[Any, Any]]:
    """Yields batches of (inputs, targets or None) as NumPy arrays.

    Example:
        >>> import numpy as np
        >>> [x.shape for x, y in batches(np.zeros((300, 4)))]
        [(256, 4), (44, 4)]

    Args:
        data: An array, a list or dictionary of arrays (several inputs), or a tuple (x, y), in
            batches of 256; a batched `tf.data.Dataset`; or a `keras.utils.PyDataset`.
        what: Name of the argument, for the error message.

    Returns:
        An iterator over pairs of arrays (batch, ...), or of lists or dictionaries of them.

    Raises:
        ValueError: The data is of none of these kinds, or the lengths of the arrays differ.
    """
    yield from ((x, y) for x, y, _ in weighted_batches(data, what))


def weighted_batches(data: ExampleData, what: str = "data") -> Iterator[Batch]:
    """Yields batches as :func:`batches`, with the weights of the examples or None.

    Args:
        data: As for :func:`batches`, with the weights after the targets.
        what: Name of the argument, for the error message.
    """
    if is_py_dataset(data):
        count = data.num_batches
        indices = itertools.count() if count is None else range(count)
        yield from (_batch(data[index], what) for index in indices)
    elif hasattr(data, "as_numpy_iterator"):
        yield from (_batch(item, what) for item in data)
    else:
        x, *others = _parts(_numpy(data), what)
        count = length(x, what)
        if any(other is not None and length(other, what) != count for other in others):
            raise ValueError(f"{what} must hold as many targets as inputs, got {count} inputs")
        for start in range(0, count, 256):
            part = slice(start, start + 256)
            y, weights = (None if other is None else sliced(other, part) for other in others)
            yield sliced(x, part), y, weights


def arrays(data: ExampleData, limit: int | None = None, what: str = "data") -> tuple[Any, Any]:
    """Returns all (inputs, targets or None) as NumPy arrays.

    Example:
        >>> import numpy as np
        >>> x, y = arrays((np.zeros((300, 4)), np.zeros(300)), limit=100)
        >>> x.shape, y.shape
        ((100, 4), (100,))

    Args:
        data: As for :func:`batches`.
        limit: Largest number of examples; None: all.
        what: Name of the argument, for the error message.

    Returns:
        Arrays (examples, ...), or lists or dictionaries of them; None for missing targets.

    Raises:
        ValueError: The data is of an unknown kind, holds no example, or is endless without a
            `limit`.
    """
    if limit is None and is_endless(data):
        raise ValueError(f"{what} must end, got an endless data set: take(n) it first")
    xs, ys, count = [], [], 0
    for x, y in batches(data, what):
        if limit is not None:
            part = slice(0, limit - count)
            x, y = sliced(x, part), None if y is None else sliced(y, part)
        xs.append(x)
        ys.append(y)
        count += length(x, what)
        if limit is not None and count >= limit:
            break
    if not count:
        raise ValueError(f"{what} must hold at least one example, got none")
    return joined(*xs), None if ys[0] is None else joined(*ys)


def spread(data: ExampleData, examples: int, what: str = "data") -> Any:
    """Returns typical inputs: of arrays one of each equal part, drawn at random.

    They represent all classes of sorted data, and all phases of periodic data, such as the hours
    of a day. The same inputs are drawn each time.

    Example:
        >>> import numpy as np
        >>> (spread(np.arange(9), 3) // 3).tolist()  # one of each third
        [0, 1, 2]

    Args:
        data: As for :func:`batches`; of a `tf.data.Dataset` or `PyDataset` the first examples are
            returned.
        examples: Largest number of inputs.
        what: Name of the argument, for the error message.

    Returns:
        Inputs (examples, ...) without targets, in the form that they have in `data`.

    Raises:
        ValueError: The data is of an unknown kind or holds no example.
    """
    return spread_pairs(data, None, examples, what)[0]


def spread_pairs(
    data: ExampleData, targets: Any, examples: int, what: str = "data"
) -> tuple[Any, Any]:
    """Returns typical inputs as :func:`spread`, and their targets.

    Example:
        >>> import numpy as np
        >>> inputs, targets = spread_pairs(np.arange(9), np.arange(9) % 2, 3)
        >>> (inputs % 2 == targets).tolist()
        [True, True, True]

    Args:
        data: As for :func:`spread`.
        targets: Targets in the form of the inputs, (examples, ...); None: those in `data`, if any.
        examples: Largest number of inputs.
        what: Name of the argument, for the error message.

    Returns:
        (inputs, targets); targets are None where there are none.

    Raises:
        ValueError: The data is of an unknown kind or holds no example.
    """
    if is_dataset(data):
        return arrays(data, examples, what)
    inputs, own = arrays(data, what=what)
    index = scattered(length(inputs, what), examples)
    own = own if targets is None else mapped(np.asarray, targets)
    return sliced(inputs, index), None if own is None else sliced(own, index)


def is_py_dataset(data: Any) -> TypeGuard[keras.utils.PyDataset]:
    """Whether data is a `keras.utils.PyDataset`."""
    # Without an imported Keras there can be no PyDataset; Keras isn't imported to read arrays.
    if "keras" not in sys.modules:
        return False
    import keras  # waits if another thread is importing it

    return isinstance(data, keras.utils.PyDataset)


def is_dataset(data: Any) -> bool:
    """Whether data is a `tf.data.Dataset` or a `keras.utils.PyDataset`."""
    return is_py_dataset(data) or hasattr(data, "as_numpy_iterator")


def is_endless(data: Any) -> bool:
    """Whether a data set says of itself that it never ends."""
    if is_py_dataset(data):
        return data.num_batches is None
    return hasattr(data, "cardinality") and int(data.cardinality()) == -1


def _parts(item: Any, what: str) -> Batch:
    parts = item if isinstance(item, tuple) else (item,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(f"{what} must be inputs or (inputs, targets), got {len(parts)} parts")
    x, y, weights = (*parts, None, None)[:3]
    return x, y, weights


def _batch(item: Any, what: str) -> Batch:
    """Returns inputs, targets and weights of a batch, which have as many examples."""
    batch = x, y, weights = _parts(_numpy(item), what)
    if y is None:
        return batch
    found = [leaf for part in (x, y, weights) if part is not None for leaf in leaves(part)]
    sizes = [len(leaf) if np.ndim(leaf) else None for leaf in found]
    if None in sizes or len(set(sizes)) > 1:
        raise ValueError(
            f"{what} must give batches with as many targets as inputs, got arrays of the shapes "
            f"{', '.join(str(np.shape(leaf)) for leaf in found)}: a data set of single examples "
            "is put in batches by its batch(64)"
        )
    return batch


def _numpy(item: Any) -> Any:
    if isinstance(item, dict):
        return {key: _numpy(value) for key, value in item.items()}
    if isinstance(item, tuple):
        return tuple(_numpy(value) for value in item)
    if isinstance(item, list) and item and hasattr(item[0], "shape"):
        return [_numpy(value) for value in item]
    return None if item is None else np.asarray(item)


def check_data(data: ExampleData, what: str = "data") -> None:
    """Checks that data can be read repeatedly.

    Example:
        >>> import numpy as np
        >>> check_data(np.zeros((5, 4)))
        >>> check_data(iter([]))
        Traceback (most recent call last):
          ...
        ValueError: data must be arrays, a tf.data.Dataset or a keras.utils.PyDataset, got ...

    Args:
        data: As for :func:`batches`, or None.
        what: Name of the argument, for the error message.

    Raises:
        ValueError: The data is endless, or of a kind that can be read only once.
    """
    if data is None or is_dataset(data):
        if data is not None and is_endless(data):
            raise ValueError(f"{what} must end, got an endless data set: take(n) it first")
        return
    if not all(getattr(leaf, "ndim", 0) for part in leaves(data) for leaf in leaves(part)):
        raise ValueError(
            f"{what} must be arrays, a tf.data.Dataset or a keras.utils.PyDataset, got "
            f"{_describe(data)}"
        )


def length(item: Arrays, what: str = "data") -> int:
    """Returns the number of examples of an array, or of a list or dictionary of arrays.

    Example:
        >>> import numpy as np
        >>> length([np.zeros((5, 4)), np.zeros(5)])
        5

    Args:
        item: The array, (examples, ...), or a list or dictionary of such arrays.
        what: Name of the argument, for the error message.

    Returns:
        The number of examples.

    Raises:
        ValueError: The lengths differ, or `item` is of another kind.
    """
    lengths = {len(leaf) if getattr(leaf, "ndim", 0) else -1 for leaf in leaves(item)}
    if len(lengths) != 1 or -1 in lengths:
        raise ValueError(
            f"{what} must be arrays of one length, a tf.data.Dataset or a "
            f"keras.utils.PyDataset, got {_describe(item)}"
        )
    return lengths.pop()


def _describe(item: Any) -> str:
    return ", ".join(f"{type(i).__name__} {getattr(i, 'shape', '')}" for i in leaves(item))


def sliced(item: Arrays, part: slice | np.ndarray) -> Any:
    """Returns a part of the examples of an array, or of a list or dictionary of arrays.

    Example:
        >>> import numpy as np
        >>> sliced({"a": np.zeros((5, 4))}, slice(0, 2))["a"].shape
        (2, 4)

    Args:
        item: The array, (examples, ...), or a list or dictionary of such arrays.
        part: A slice, or indices or a mask of the examples.

    Returns:
        The part, in the same form.
    """
    return mapped(lambda array: array[part], item)
