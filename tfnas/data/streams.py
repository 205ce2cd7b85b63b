"""Examples that are streamed: batches of the user's own, never all in memory.

The first time that their number is needed, all batches are read once: they are counted and hashed,
and checked for one form and finite numbers.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.data.batch_form import LeafForm, merged
from tfnas.data.batch_sources import BatchSource, source_of
from tfnas.data.checked_arrays import check_some_weight, examples_of, has_weight
from tfnas.data.examples import (
    BATCH,
    Batches,
    Examples,
    Nested,
    as_tuples,
    joined_examples,
    leaves_by_key,
    mapped,
    scattered,
)

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

READ_AGAIN = 2  # batches that tell whether a pass repeats the one before
ROUNDS = 5  # times that a stream repeats itself before it counts as endless
SAME = 1_000  # equal batches from the first one on that count as endless
MOST_BATCHES = 1_000_000  # of a stream that does not know its number of batches


@dataclasses.dataclass(frozen=True, eq=False)
class Pass:
    """What one pass over all batches found.

    Args:
        form: The :class:`~tfnas.data.batch_form.LeafForm` of each array of (x, y) or
            (x, y, sample_weight).
        sizes: Number of examples of each batch.
        contents: Sum of the hashes of each batch's examples, whatever their order.
        orders: Hash of each batch's examples in their order.
    """

    form: Nested
    sizes: np.ndarray
    contents: np.ndarray
    orders: np.ndarray

    def rows(self, positions: np.ndarray) -> Pass:
        """Returns what a pass over some of the batches would find.

        Args:
            positions: Numbers of the batches.
        """
        parts = (self.sizes[positions], self.contents[positions], self.orders[positions])
        return Pass(self.form, *parts)


class StreamedExamples:
    """Examples in batches that are read again and again.

    Each use reads the batches it needs. What is small is kept: the result of `first` and `spread`,
    and three numbers for each batch.

    Example:
        >>> def batches():
        ...     for start in range(0, 10, 4):
        ...         x = np.arange(start, min(start + 4, 10))
        ...         yield x, 2 * x
        >>> examples = StreamedExamples(batches)
        >>> len(examples), examples.steps(64), examples.spread(3).y
        (10, 3, array([ 4,  8, 16]))

    Args:
        data: A batched `tf.data.Dataset`, a `keras.utils.PyDataset`, or a function without
            arguments that returns a new iterator of batches at each call. Batches are (x, y) or
            (x, y, sample_weight), each an array (batch, ...) or a nest of such arrays.
        what: Name of the argument, for error messages.
        fitted: Changes the inputs of a batch to those of a model, and checks them; None: no
            change.

    Raises:
        ValueError: The data is of another kind, endless, a generator that can't begin again, or in
            single examples; what can be said only of a batch or of all is said when it is read.
    """

    def __init__(
        self,
        data: tf.data.Dataset | keras.utils.PyDataset | Callable[[], Iterator[Any]] | BatchSource,
        what: str = "data",
        fitted: Callable[[Nested], Nested] | None = None,
    ) -> None:
        self.what, self._fitted = what, fitted
        self.source = data if isinstance(data, BatchSource) else source_of(data, what)
        self._small: dict[tuple[str, int], Examples] = {}

    def __len__(self) -> int:
        return int(self.found.sizes.sum())

    @functools.cached_property
    def found(self) -> Pass:
        """What a pass over all batches found; the first use reads them.

        Raises:
            ValueError: There are no batches, a batch has another form than the one before or a
                number that is not finite, all weights are 0, or there is no end.
        """
        form: Nested = None
        sizes, contents, orders, weighty = [], [], [], False
        repetition = _Repetition()
        for number, batch in enumerate(self._read(self.source.read())):
            form = self._common_form(form, batch, number)
            hashes = example_hashes(batch)
            sizes.append(len(batch))
            weighty = weighty or has_weight(batch)
            contents.append(hashes.sum(dtype=np.uint64))
            orders.append(_hash_of(hashes.tobytes()))
            if self.source.number is None:
                self._check_end(number, repetition, int(orders[-1]))
        if not sizes:
            raise ValueError(f"{self.what} must hold at least one example, got none")
        check_some_weight(weighty, self.what)
        return Pass(form, np.array(sizes), np.array(contents), np.array(orders, np.uint64))

    def _check_end(self, number: int, repetition: _Repetition, order: int) -> None:
        if repetition.seen(order) or number >= MOST_BATCHES:
            raise ValueError(
                f"{self.what} must end, got more than {number:,} batches"
                + (f", which repeat after {repetition.period:,}" if repetition.period else "")
                + ": yield each batch once"
            )

    def _common_form(self, form: Nested, batch: Examples, number: int) -> Nested:
        own = mapped(LeafForm.of, _parts(batch))
        if form is None:
            return own
        try:
            return merged(form, own)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.what} must yield batches of one form, got another one in batch {number}: "
                f"{error}"
            ) from error

    def _read(self, batches: Iterator[Any]) -> Iterator[Examples]:
        for item in batches:
            batch = examples_of(item, self.what)
            if self._fitted is not None:
                batch = dataclasses.replace(batch, x=self._fitted(batch.x))
            yield batch

    def batches(self, size: int = BATCH) -> Iterator[Examples]:
        """Yields all examples in the batches of the user.

        Args:
            size: Not used: batches have their own sizes.
        """
        yield from self._read(self.source.read())

    def steps(self, batch_size: int) -> int:
        """Returns the number of batches.

        Args:
            batch_size: Not used: batches have their own sizes.
        """
        number = self.source.number
        return len(self.found.sizes) if number is None else number

    def first(self, count: int) -> Examples:
        """Returns the first examples.

        Args:
            count: Largest number of examples.
        """
        if ("first", count) not in self._small:
            parts: list[Examples] = []
            missing = count
            for batch in self.batches():
                # An index, no slice: a view would keep the whole batch in memory.
                parts.append(batch.rows(np.arange(min(missing, len(batch)))))
                missing -= len(parts[-1])
                if missing <= 0:
                    break
            if not parts:
                raise ValueError(f"{self.what} must hold at least one example, got none")
            self._small["first", count] = joined_examples(*parts)
        return self._small["first", count]

    def spread(self, count: int) -> Examples:
        """Returns examples from all parts, which represent all classes of sorted data too.

        Args:
            count: Largest number of examples.
        """
        if ("spread", count) not in self._small:
            index = scattered(len(self), count)
            ends = np.cumsum(self.found.sizes)
            number = np.searchsorted(ends, index, side="right")
            positions = np.unique(number)
            starts = ends - self.found.sizes
            batches = self._read(self.source.at(positions.tolist()))
            parts = [
                # A stream in another order each time may have batches of other sizes.
                batch.rows(np.minimum(index[number == at] - starts[at], len(batch) - 1))
                for at, batch in zip(positions, batches, strict=False)
            ]
            self._small["spread", count] = joined_examples(*parts)
        return self._small["spread", count]

    def training_batches(
        self, batch_size: int, seed: int, teacher_outputs: np.ndarray | None = None
    ) -> Batches:
        """Returns the user's own batches.

        A `tf.data.Dataset` and a function keep their order; the batches of a `PyDataset` come in
        another order in each epoch, as in Keras' `fit`, and its `on_epoch_end` is called.

        Args:
            batch_size: Not used: batches have their own sizes.
            seed: Seed of the orders of a `PyDataset`.
            teacher_outputs: Must be None: no order of the examples is known.

        Raises:
            ValueError: A teacher's outputs are given.
        """
        if teacher_outputs is not None:
            raise ValueError("teacher_outputs must be None for data in batches, got an array")

        def prepared(item: Any) -> Nested:
            return as_tuples(_parts(next(self._read(iter([item])))))

        return self.source.training_batches(self.found.form, len(self.found.sizes), seed, prepared)

    @functools.cached_property
    def repeats(self) -> bool:
        """Whether a second pass begins with the same examples in the same order.

        Raises:
            ValueError: There is no second pass.
        """
        few = range(min(READ_AGAIN, len(self.found.orders)))
        again = [_order_of(batch) for batch in self._read(self.source.at(few))]
        if not again:
            raise ValueError(
                f"{self.what} must return a new iterator at each call, got one that was read before"
            )
        return bool(again == self.found.orders[: len(few)].tolist())

    def repeats_all(self) -> bool:
        """Returns whether a second pass over all batches is the same as the first."""
        again = [_order_of(batch) for batch in self.batches()]
        return again == self.found.orders.tolist()

    def share(self, positions: np.ndarray, what: str) -> StreamedExamples:
        """Returns the examples of some of the batches.

        Args:
            positions: Numbers of the batches, in ascending order.
            what: Name of the part, for error messages.
        """
        part = StreamedExamples(self.source.share(positions), what, self._fitted)
        # Known from the pass over all, so it is not read again.
        part.__dict__["found"] = self.found.rows(positions)
        return part

    def digest(self) -> str:
        """Returns a hash that tells whether this is the same data in another process.

        It is made of the number of examples and of batches, of shapes and types, and of all
        examples, whatever their order. Where two passes begin with other examples, since they are
        shuffled or augmented at random, their contents are left out.
        """
        found = self.found
        content = int(found.contents.sum(dtype=np.uint64)) if self.repeats else None
        forms = [str(form) for form in leaves_by_key(found.form)]
        text = json.dumps([len(self), len(found.sizes), forms, content])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Repetition:
    """Whether a sequence of hashes goes through the same period again and again."""

    def __init__(self) -> None:
        self._first: list[int] = []  # the values before the period came back
        self._varied = False
        self.period, self._at, self._rounds = 0, 0, 0

    def seen(self, value: int) -> bool:
        """Takes the next value.

        Returns:
            Whether `ROUNDS` equal periods of several values ended, or `SAME` values were equal.
        """
        if self.period and value == self._first[self._at]:
            self._at += 1
            if self._at == self.period:
                self._at, self._rounds = 0, self._rounds + 1
            return self._rounds >= ROUNDS
        if self.period:  # it was no period: all that was read belongs to the first one
            self._first = self._first * self._rounds + self._first[: self._at]
            self.period = 0
        if self._varied and value == self._first[0]:
            self.period, self._at, self._rounds = len(self._first), 1, 1
            return False
        self._varied = self._varied or value != (self._first or [value])[0]
        self._first.append(value)
        if not self._varied and len(self._first) > SAME:
            self.period = 1
            return True
        return False


def example_hashes(examples: Examples) -> np.ndarray:
    """Returns a hash of each example with its targets and weights, (examples,) of uint64.

    Args:
        examples: The examples.
    """
    rows = [_row_bytes(np.asarray(leaf)) for leaf in leaves_by_key(_parts(examples))]
    return np.array([_hash_of(*parts) for parts in zip(*rows, strict=True)], np.uint64)


def _row_bytes(array: np.ndarray) -> Any:
    if array.dtype.kind in "OU":
        return [repr(row.tolist() if hasattr(row, "tolist") else row).encode() for row in array]
    if not array.size:
        return [b""] * len(array)
    flat = np.ascontiguousarray(array).reshape(len(array), -1)
    return flat.view(np.uint8)


def _hash_of(*parts: Any) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return int.from_bytes(digest.digest(), "little")


def _order_of(batch: Examples) -> int:
    return _hash_of(example_hashes(batch).tobytes())


def _parts(examples: Examples) -> tuple[Nested, ...]:
    weights = () if examples.weights is None else (examples.weights,)
    return (examples.x, examples.y, *weights)
