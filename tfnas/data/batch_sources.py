"""Data that comes in batches, read again and again: one class for each kind of it.

A source yields raw batches and is trained on; :class:`tfnas.data.streams.StreamedExamples` makes
examples of it.
"""

from __future__ import annotations

import abc
import collections
import concurrent.futures
import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.data.batch_form import signature
from tfnas.data.checked_arrays import described
from tfnas.data.examples import Nested
from tfnas.data.reading import is_dataset, is_endless

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from tfnas.data.examples import Batches

Prepared = Callable[[Any], Nested]

KINDS = (
    "a tf.data.Dataset of batches, a keras.utils.PyDataset, or a function that returns a new "
    "iterator of batches"
)


class BatchSource(abc.ABC):
    """Batches in an order of their own, which can be read more than once."""

    number: int | None  # of batches; None: it is not known before a pass

    @abc.abstractmethod
    def read(self) -> Iterator[Any]:
        """Yields all batches as the user made them."""

    @abc.abstractmethod
    def share(self, positions: np.ndarray) -> BatchSource:
        """Returns some of the batches.

        Args:
            positions: Their numbers, in ascending order.
        """

    @property
    def reorders(self) -> bool:
        """Whether the batches may be others after an epoch of training."""
        return False

    @abc.abstractmethod
    def training_batches(self, form: Nested, number: int, seed: int, prepared: Prepared) -> Batches:
        """Returns the batches of a training.

        Args:
            form: The :class:`~tfnas.data.batch_form.LeafForm` of each array of a batch.
            number: Number of batches of an epoch.
            seed: Seed of the order of batches, where it is drawn here.
            prepared: Returns a batch as arrays in tuples and dictionaries.
        """

    def at(self, positions: Sequence[int]) -> Iterator[Any]:
        """Yields some batches.

        Args:
            positions: Their numbers, in ascending order.
        """
        kept, last = set(positions), max(positions, default=-1)
        for position, batch in enumerate(self.read()):
            if position in kept:
                yield batch
            if position >= last:
                return


def is_stream(data: Any) -> bool:
    """Whether data is of a kind that :func:`source_of` takes, or nearly: a generator."""
    return is_dataset(data) or isinstance(data, Iterator) or callable(data)


def source_of(data: Any, what: str) -> BatchSource:
    """Returns the source of streamed data after checks that read nothing of it.

    Args:
        data: A batched `tf.data.Dataset`, a `keras.utils.PyDataset`, or a function without
            arguments that returns a new iterator of batches at each call.
        what: Name of the argument, for the error message.

    Raises:
        ValueError: It is of another kind, endless, a generator that can't begin again, or has no
            batches.
    """
    if isinstance(data, Iterator) and not hasattr(data, "as_numpy_iterator"):
        raise ValueError(
            f"{what} must be readable more than once, got {described(data)}, which can't begin "
            "again: give the function that makes it"
        )
    if is_dataset(data):
        if is_endless(data):
            raise ValueError(
                f"{what} must end, got an endless data set: give its number of batches, such as "
                "dataset.take(100)"
            )
        return DatasetSource(data, what) if hasattr(data, "element_spec") else PySource(data, what)
    if not callable(data):
        raise ValueError(f"{what} must be {KINDS}, got {described(data)}")
    try:
        inspect.signature(data).bind()
    except TypeError as error:
        raise ValueError(f"{what} must be a function without arguments: {error}") from error
    except ValueError:  # some functions written in C have no signature
        pass
    return FunctionSource(data, what)


class DatasetSource(BatchSource):
    """A batched `tf.data.Dataset`.

    Args:
        dataset: The dataset.
        what: Name of the argument, for error messages.

    Raises:
        ValueError: It has single examples instead of batches.
    """

    def __init__(self, dataset: tf.data.Dataset, what: str = "data") -> None:
        import tensorflow as tf

        from tfnas.data.augmentation import untuned

        specs = tf.nest.flatten(dataset.element_spec)
        if any(getattr(spec, "shape", None) == () for spec in specs):
            raise ValueError(f"{what} must be in batches, got single examples: {what}.batch(32)")
        self.dataset = untuned(dataset)
        count = int(dataset.cardinality())
        self.number = count if count >= 0 else None

    def read(self) -> Iterator[Any]:
        """Yields all batches."""
        yield from self.dataset

    def share(self, positions: np.ndarray) -> DatasetSource:
        """Returns some of the batches."""
        import tensorflow as tf

        kept = np.zeros(int(positions[-1]) + 1, bool)
        kept[positions] = True
        flags = tf.data.Dataset.from_tensor_slices(kept)
        both = tf.data.Dataset.zip(flags, self.dataset)
        # Two lambdas in one line are more than AutoGraph can tell apart: it warns.
        chosen = both.filter(lambda keep, item: keep)
        chosen = chosen.map(lambda keep, item: item)
        sized = tf.data.experimental.assert_cardinality(len(positions))
        return DatasetSource(chosen.apply(sized))

    def training_batches(
        self, form: Nested, number: int, seed: int, prepared: Prepared
    ) -> DatasetBatches:
        """Returns the dataset's own batches, in its own order."""
        # Keras warns of a dataset that ends where its number of batches is not known.
        known = self.number is not None
        return DatasetBatches(self.dataset if known else self.dataset.repeat().take(number))


@dataclasses.dataclass(frozen=True, eq=False)
class DatasetBatches:
    """The batches of a `tf.data.Dataset`, whose order is its own.

    Args:
        batches: The dataset.
    """

    batches: tf.data.Dataset

    def start_at(self, epoch: int) -> None:
        """Does nothing: a dataset does not know its epochs."""

    def dataset(self) -> tf.data.Dataset:
        """Returns the dataset."""
        return self.batches


class PySource(BatchSource):
    """A `keras.utils.PyDataset`.

    Args:
        dataset: The dataset.
        what: Name of the argument, for error messages.
        positions: Numbers of its batches that are used; None: all.

    Raises:
        ValueError: It has no batches.
    """

    def __init__(
        self,
        dataset: keras.utils.PyDataset,
        what: str = "data",
        positions: np.ndarray | None = None,
    ) -> None:
        if not dataset.num_batches:
            raise ValueError(f"{what} must hold at least one example, got a PyDataset of length 0")
        self.inner = dataset
        self.positions = np.arange(dataset.num_batches) if positions is None else positions
        self.number = len(self.positions)
        self._in_epoch = False

    def read(self) -> Iterator[Any]:
        """Yields all batches in the order of their numbers; no epoch begins or ends."""
        yield from self.at(range(len(self.positions)))

    def at(self, positions: Sequence[int]) -> Iterator[Any]:
        """Yields some batches."""
        for position in positions:
            yield as_item(self.inner[int(self.positions[position])])

    def share(self, positions: np.ndarray) -> PySource:
        """Returns some of the batches."""
        return PySource(self.inner, positions=self.positions[positions])

    @property
    def reorders(self) -> bool:
        """Whether the dataset does anything between epochs, such as shuffling its examples."""
        import keras

        names = ("on_epoch_begin", "on_epoch_end")
        base = keras.utils.PyDataset
        return any(getattr(type(self.inner), name) is not getattr(base, name) for name in names)

    def begin_epoch(self) -> None:
        """Ends the epoch before, if there was one, and begins the next."""
        if self._in_epoch:
            self.inner.on_epoch_end()
        self._in_epoch = True
        self.inner.on_epoch_begin()

    def training_batches(
        self, form: Nested, number: int, seed: int, prepared: Prepared
    ) -> PyBatches:
        """Returns the batches in another order in each epoch, as Keras' `fit` shuffles them."""
        return PyBatches(self, form, seed, prepared)


class PyBatches:
    """Batches of a `keras.utils.PyDataset`, read by as many threads as it has workers.

    `on_epoch_end` is called before the next epoch begins. With `use_multiprocessing` too, threads
    read: TensorFlow runs in this process, which can't be forked safely.

    Args:
        source: The dataset.
        form: The :class:`~tfnas.data.batch_form.LeafForm` of each array of a batch.
        seed: Seed of the orders.
        prepared: Returns a batch as arrays in tuples and dictionaries.
    """

    def __init__(self, source: PySource, form: Nested, seed: int, prepared: Prepared) -> None:
        self.source, self.form, self.prepared = source, form, prepared
        self.seed, self.epoch = seed, 0

    def start_at(self, epoch: int) -> None:
        """Sets the epoch of the next iteration."""
        self.epoch = epoch

    def dataset(self) -> tf.data.Dataset:
        """Returns the batches as a `tf.data.Dataset`; each iteration over it is an epoch."""
        return _generated(self._epoch, self.form, len(self.source.positions))

    def _epoch(self) -> Iterator[Any]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(
            len(self.source.positions)
        )
        self.epoch += 1
        self.source.begin_epoch()
        inner = self.source.inner
        if inner.workers <= 1:
            yield from map(self.prepared, self.source.at(order.tolist()))
            return
        with concurrent.futures.ThreadPoolExecutor(inner.workers) as pool:
            ahead: collections.deque[concurrent.futures.Future[Any]] = collections.deque()
            for position in order:
                ahead.append(pool.submit(inner.__getitem__, int(self.source.positions[position])))
                if len(ahead) >= max(inner.max_queue_size, inner.workers):
                    yield self.prepared(as_item(ahead.popleft().result()))
            while ahead:
                yield self.prepared(as_item(ahead.popleft().result()))


class FunctionSource(BatchSource):
    """A function that returns a new iterator of batches at each call.

    Args:
        function: The function, without arguments.
        what: Name of the argument, for error messages.
        positions: Numbers of the batches that are used, in ascending order; None: all.
    """

    def __init__(
        self,
        function: Callable[[], Iterable[Any]],
        what: str = "data",
        positions: np.ndarray | None = None,
    ) -> None:
        self.function, self.what, self.positions = function, what, positions
        self.number = None if positions is None else len(positions)

    def read(self) -> Iterator[Any]:
        """Yields all batches."""
        if self.positions is None:
            yield from self._all()
            return
        kept = set(self.positions.tolist())
        for position, batch in enumerate(self._all()):
            if position in kept:
                yield batch

    def _all(self) -> Iterator[Any]:
        batches = self.function()
        if not isinstance(batches, Iterable):
            raise ValueError(
                f"{self.what} must return a new iterator of batches at each call, got "
                f"{described(batches)}"
            )
        yield from map(as_item, batches)

    def share(self, positions: np.ndarray) -> FunctionSource:
        """Returns some of the batches."""
        own = positions if self.positions is None else self.positions[positions]
        return FunctionSource(self.function, self.what, own)

    def training_batches(
        self, form: Nested, number: int, seed: int, prepared: Prepared
    ) -> DatasetBatches:
        """Returns the function's own batches, in its own order."""
        return DatasetBatches(_generated(lambda: map(prepared, self.read()), form, number))


def as_item(batch: Any) -> Any:
    """Returns a batch with a tuple for a list of inputs, targets and weights, as Keras does.

    Args:
        batch: What a PyDataset or a generator gave.
    """
    return tuple(batch) if isinstance(batch, list) else batch


def _generated(batches: Callable[[], Iterator[Any]], form: Nested, number: int) -> tf.data.Dataset:
    import tensorflow as tf

    from tfnas.data.augmentation import untuned

    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature(form))
    return untuned(dataset.repeat().take(number).prefetch(2))
