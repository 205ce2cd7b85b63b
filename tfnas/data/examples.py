"""Examples of any kind: nested inputs and targets, and the parts that training and tests use."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

Nested = Any  # an array, or lists, tuples and dictionaries of arrays; examples first
BATCH = 256  # examples that are judged at once


class ExampleSet(Protocol):
    """Examples that can be read again and again; :class:`Examples` holds them in memory."""

    def __len__(self) -> int: ...

    def first(self, count: int) -> Examples:
        """Returns the first examples.

        Args:
            count: Largest number of examples.
        """

    def spread(self, count: int) -> Examples:
        """Returns typical examples, from all parts where any of them can be read.

        Args:
            count: Largest number of examples.
        """

    def batches(self, size: int = BATCH) -> Iterator[Examples]:
        """Yields all examples in their order.

        Args:
            size: Largest number of examples in a batch, where the examples are in memory.
        """

    def steps(self, batch_size: int) -> int:
        """Returns the number of training steps of an epoch.

        Args:
            batch_size: Examples of a step, where the examples are in memory.
        """

    def training_batches(
        self, batch_size: int, seed: int, teacher_outputs: np.ndarray | None = None
    ) -> Batches:
        """Returns the batches of a training.

        Args:
            batch_size: Examples of a batch, where the examples are in memory.
            seed: Seed of their order, where it is drawn.
            teacher_outputs: A teacher's outputs for all examples: targets are then pairs.
        """


class Batches(Protocol):
    """Batches of a training, whose order may depend on the number of the epoch."""

    def start_at(self, epoch: int) -> None:
        """Sets the epoch of the next iteration.

        Args:
            epoch: Its number, from 0.
        """

    def dataset(self) -> tf.data.Dataset:
        """Returns the batches; each iteration is an epoch."""


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
        weights: Weights in the loss of a training, (examples,), or in the form of the targets;
            None: all have the same weight.
        groups: A group of each example, (examples,), such as a speaker: reports show the quality
            of each; None: there are none.

    Raises:
        ValueError: The arrays hold different numbers of examples.
    """

    x: Nested
    y: Nested
    weights: Nested | None = None
    groups: np.ndarray | None = None

    def __post_init__(self) -> None:
        parts = {"x": self.x, "y": self.y, "sample_weight": self.weights}
        counts = {
            name: list(dict.fromkeys(len(leaf) for leaf in leaves(part)))
            for name, part in parts.items()
            if part is not None
        }
        if len({count for each in counts.values() for count in each}) > 1:
            got = ", ".join(f"{' and '.join(map(str, each))} in {n}" for n, each in counts.items())
            raise ValueError(f"{' and '.join(counts)} must hold as many examples, got {got}")
        if self.groups is not None and np.shape(self.groups) != (len(self),):
            raise ValueError(
                f"groups must hold a group for each of {len(self)} examples, of shape "
                f"({len(self)},), got {np.shape(self.groups)}"
            )

    def __len__(self) -> int:
        return len(leaves(self.x)[0])

    def rows(self, index: Any) -> Examples:
        """Returns some of the examples.

        Args:
            index: Numbers of examples, or a slice.
        """
        weights = None if self.weights is None else mapped(lambda a: a[index], self.weights)
        groups = None if self.groups is None else self.groups[index]
        return Examples(
            *(mapped(lambda a: a[index], self.x), mapped(lambda a: a[index], self.y)),
            *(weights, groups),
        )

    def first(self, count: int) -> Examples:
        """Returns the first examples.

        Args:
            count: Largest number of examples.
        """
        return self.rows(slice(count))

    def batches(self, size: int = BATCH) -> Iterator[Examples]:
        """Yields all examples in their order.

        Args:
            size: Largest number of examples in a batch.
        """
        for start in range(0, len(self), size):
            yield self.rows(slice(start, start + size))

    def steps(self, batch_size: int) -> int:
        """Returns the number of training steps of an epoch.

        Args:
            batch_size: Examples of a step.
        """
        return -(-len(self) // batch_size)

    def training_batches(
        self, batch_size: int, seed: int, teacher_outputs: np.ndarray | None = None
    ) -> Batches:
        """Returns the batches of a training, in another order in each epoch.

        Args:
            batch_size: Examples of a batch; the last one may hold fewer.
            seed: Seed of the orders.
            teacher_outputs: A teacher's outputs for all examples: targets are then pairs.
        """
        from tfnas.data.augmentation import ShuffledBatches  # imports TensorFlow

        y = self.y if teacher_outputs is None else (self.y, teacher_outputs)
        weights = () if self.weights is None else (self.weights,)
        return ShuffledBatches(as_tuples((self.x, y, *weights)), batch_size, seed)

    def spread(self, count: int) -> Examples:
        """Returns examples from all parts, which represent all classes of sorted data too.

        Args:
            count: Largest number of examples.
        """
        return self.rows(scattered(len(self), count))


class Data(Protocol):
    """Data in three disjoint parts, as jobs take them; :class:`tfnas.data.DataSplit` is one."""

    @property
    def name(self) -> str:
        """Name of the data."""

    @property
    def train(self) -> ExampleSet:
        """Examples for training."""

    @property
    def validation(self) -> ExampleSet:
        """Examples for choosing among models."""

    @property
    def test(self) -> ExampleSet:
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
        train = joined_examples(self.train, self.validation)
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


def notes_of(data: Data) -> tuple[str, ...]:
    """Returns what a user should know of the parts of some data, such as how they were split.

    Args:
        data: The data; its `notes`, where it has any.
    """
    return tuple(getattr(data, "notes", ()))


def scattered(examples: int, count: int) -> np.ndarray:
    """Returns the numbers of examples, one drawn from each of `count` equal parts.

    Evenly spaced ones would be of one phase where data is periodic, such as hours of a day.

    Example:
        >>> scattered(10, 10).tolist() == list(range(10))
        True
        >>> (scattered(240, 10) // 24).tolist() == list(range(10))  # an hour of each day
        True

    Args:
        examples: Number of all examples.
        count: Largest number of those that are returned.
    """
    ends = np.arange(min(count, examples) + 1) * examples // max(1, min(count, examples))
    return np.random.default_rng(0).integers(ends[:-1], ends[1:])


def digest_of(*parts: Examples) -> str:
    """Returns a hash of examples, as 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        weights = () if part.weights is None else leaves_by_key(part.weights)
        for array in (*leaves_by_key(part.x), *leaves_by_key(part.y), *weights):
            text = np.asarray(array).dtype.kind == "O"  # strings of Python
            content = repr(array.tolist()).encode() if text else np.ascontiguousarray(array).data
            digest.update(content)
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


def joined_examples(*parts: Examples) -> Examples:
    """Returns the examples of several parts, one after the other.

    Args:
        *parts: The parts, all with weights or all without; groups are kept where all have them.
    """
    weighted = parts[0].weights is not None
    groups = [part.groups for part in parts if part.groups is not None]
    return Examples(
        joined(*(part.x for part in parts)),
        joined(*(part.y for part in parts)),
        joined(*(part.weights for part in parts)) if weighted else None,
        np.concatenate(groups) if len(groups) == len(parts) else None,
    )


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


def leaves_by_key(nested: Nested) -> list[Any]:
    """Returns the arrays of nested inputs or targets, of dictionaries in the order of their keys.

    Args:
        nested: The arrays.
    """
    return leaves(_by_key(nested))


def _by_key(nested: Nested) -> Nested:
    """Returns nested arrays with dictionaries in the order of their keys."""
    if isinstance(nested, dict):
        return {key: _by_key(nested[key]) for key in sorted(nested)}
    if isinstance(nested, list | tuple):
        return type(nested)(_by_key(part) for part in nested)
    return nested
