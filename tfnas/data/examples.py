"""Examples of any kind: nested inputs and targets, and the parts that training and tests use."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any, Protocol

import numpy as np

Nested = Any  # an array, or lists, tuples and dictionaries of arrays; examples first


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Inputs and targets of some examples.

    Example:
        >>> examples = Examples({"a": np.arange(4), "b": np.zeros((4, 2))}, np.ones(4))
        >>> len(examples), examples.rows([0, 2]).x["a"]
        (4, array([0, 2]))

    Args:
        x: Inputs: an array (examples, ...), or lists and dictionaries of such arrays.
        y: Targets, in the same form.

    Raises:
        ValueError: The arrays hold different numbers of examples.
    """

    x: Nested
    y: Nested

    def __post_init__(self) -> None:
        counts = {len(leaf) for leaf in (*leaves(self.x), *leaves(self.y))}
        if len(counts) > 1:
            raise ValueError(
                f"x and y must hold as many examples, got {', '.join(map(str, sorted(counts)))}"
            )

    def __len__(self) -> int:
        return len(leaves(self.x)[0])

    def rows(self, index: Any) -> Examples:
        """Returns some of the examples.

        Args:
            index: Numbers of examples, or a slice.
        """
        return Examples(mapped(lambda a: a[index], self.x), mapped(lambda a: a[index], self.y))

    def spread(self, count: int) -> Examples:
        """Returns evenly spaced examples, which represent all classes of sorted data too.

        Args:
            count: Largest number of examples.
        """
        return self.rows(evenly(len(self), count))


class Data(Protocol):
    """Data in three disjoint parts, as jobs take them; :class:`tfnas.data.DataSplit` is one."""

    @property
    def name(self) -> str:
        """Name of the data."""

    @property
    def train(self) -> Examples:
        """Examples for training."""

    @property
    def validation(self) -> Examples:
        """Examples for choosing among models."""

    @property
    def test(self) -> Examples:
        """Examples for the final measurement."""

    def for_given_model(self, seed: int = 0) -> Data:
        """Returns parts for a model that may have been trained on `train` and `validation`."""

    def digest(self) -> str:
        """Returns a hash of all examples."""


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayParts:
    """Nested arrays in three disjoint parts: data of any kind for a :class:`tfnas.Task`.

    Example:
        >>> x, y = np.zeros((10, 4)), np.zeros(10)
        >>> parts = [Examples(x[rows], y[rows]) for rows in (slice(6), slice(6, 8), slice(8, 10))]
        >>> print(ArrayParts("table", *parts))
        table: 6 train, 2 validation, 2 test examples

    Args:
        name: Name of the data.
        train: Examples for training.
        validation: Examples for choosing among models.
        test: Examples for the final measurement.
    """

    name: str
    train: Examples
    validation: Examples
    test: Examples

    def for_given_model(self, seed: int = 0) -> ArrayParts:
        """Returns parts for a model that was trained before.

        Half of `test` becomes `validation`, and `validation` joins `train`: a model may have been
        trained on both.

        Args:
            seed: Seed of the division of `test`.
        """
        order = np.random.default_rng(seed).permutation(len(self.test))
        half = len(order) // 2
        train = Examples(
            joined(self.train.x, self.validation.x), joined(self.train.y, self.validation.y)
        )
        test, validation = self.test.rows(np.sort(order[half:])), np.sort(order[:half])
        return ArrayParts(self.name, train, self.test.rows(validation), test)

    def digest(self) -> str:
        """Returns a hash of all examples, as 16 hexadecimal digits."""
        return digest_of(self.train, self.validation, self.test)

    def __str__(self) -> str:
        return (
            f"{self.name}: {len(self.train)} train, {len(self.validation)} validation, "
            f"{len(self.test)} test examples"
        )


def evenly(examples: int, count: int) -> np.ndarray:
    """Returns the numbers of evenly spaced examples.

    Args:
        examples: Number of all examples.
        count: Largest number of those that are returned.
    """
    return np.unique(np.linspace(0, examples - 1, min(count, examples)).astype(int))


def digest_of(*parts: Examples) -> str:
    """Returns a hash of examples, as 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        for array in (*leaves(_by_key(part.x)), *leaves(_by_key(part.y))):
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def leaves(nested: Nested) -> list[Any]:
    """Returns the arrays of nested inputs or targets, in order.

    Example:
        >>> [leaf.shape for leaf in leaves({"a": np.zeros((2, 3)), "b": [np.zeros(2)]})]
        [(2, 3), (2,)]

    Args:
        nested: An array, (examples, ...), or lists and dictionaries of such arrays.
    """
    if isinstance(nested, dict):
        nested = list(nested.values())
    if isinstance(nested, list | tuple):
        return [leaf for part in nested for leaf in leaves(part)]
    return [nested]


def mapped(function: Any, nested: Nested) -> Nested:
    """Applies a function to each array of nested inputs or targets."""
    if isinstance(nested, dict):
        return {key: mapped(function, value) for key, value in nested.items()}
    if isinstance(nested, list | tuple):
        return type(nested)(mapped(function, part) for part in nested)
    return function(nested)


def joined(*parts: Nested) -> Nested:
    """Returns the examples of nests of one structure, one after the other.

    Args:
        *parts: The nests.
    """
    first = parts[0]
    if isinstance(first, dict):
        return {key: joined(*(part[key] for part in parts)) for key in first}
    if isinstance(first, list | tuple):
        return type(first)(joined(*columns) for columns in zip(*parts, strict=True))
    return np.concatenate(parts)


def as_tuples(nested: Nested) -> Nested:
    """Returns nested arrays with tuples for lists, which `tf.data` would stack.

    Args:
        nested: The arrays.
    """
    if isinstance(nested, dict):
        return {key: as_tuples(value) for key, value in nested.items()}
    if isinstance(nested, list | tuple):
        return tuple(as_tuples(part) for part in nested)
    return nested


def _by_key(nested: Nested) -> Nested:
    """Returns nested arrays with dictionaries in the order of their keys."""
    if isinstance(nested, dict):
        return {key: _by_key(nested[key]) for key in sorted(nested)}
    if isinstance(nested, list | tuple):
        return type(nested)(_by_key(part) for part in nested)
    return nested
