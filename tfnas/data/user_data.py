"""The user's own data of any kind in three parts: training, validation and test.

A part that is missing is split off, and said in the notes: for choosing among models and for the
final measurement, examples are needed that the model was not trained on.
"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tfnas.data.batch_sources import KINDS, is_stream
from tfnas.data.checked_arrays import (
    check_some_weight,
    checked_examples,
    described,
    examples_of,
    has_weight,
)
from tfnas.data.class_names import ClassNames
from tfnas.data.examples import Examples, ExampleSet, digest_of
from tfnas.data.model_inputs import inputs_fitting
from tfnas.data.stratify import draw
from tfnas.data.streams import StreamedExamples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import keras
    import tensorflow as tf

    UserData: TypeAlias = (
        "Examples | StreamedExamples | tuple[Any, ...] | tf.data.Dataset | keras.utils.PyDataset "
        "| Callable[[], Iterable[Any]]"
    )

Part: TypeAlias = Examples | StreamedExamples

PART = 0.1  # of the training data, for each part that is split off
PERIOD = 10  # of this many batches of a stream, one is split off for each part
FEWEST = 3  # examples, or batches, of which parts are split off


@dataclasses.dataclass(frozen=True, eq=False)
class DataParts:
    """Data of any kind in three disjoint parts, for a model that may have been trained before.

    Example:
        >>> x, y = np.zeros((10, 4)), np.arange(10.0)
        >>> print(data_parts((x, y)))
        data: 8 train, 1 validation, 1 test examples

    Args:
        name: Name of the data.
        train: Examples for training.
        validation: Examples for choosing among models.
        test: Examples for the final measurement.
        notes: What was split off from what, and the numbers of class names, a sentence each.
        target_names: Class names of the targets in the order of their numbers; empty: none.
    """

    name: str
    train: ExampleSet
    validation: ExampleSet
    test: ExampleSet
    notes: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()

    def for_given_model(self, seed: int = 0) -> DataParts:
        """Returns the same parts: they were made for a model that was trained before.

        Args:
            seed: Not used.
        """
        return self

    def limited(self, examples: int | None, seed: int = 0) -> DataParts:
        """Returns the parts with a random subset of the training examples.

        Args:
            examples: Largest number of training examples; None: all.
            seed: Seed of the subset.

        Raises:
            ValueError: The training examples are streamed.
        """
        if examples is None or examples >= len(self.train):
            return self
        if not isinstance(self.train, Examples):
            raise ValueError(
                f"train_limit must be None for data in batches, got {examples!r}: take fewer "
                "batches"
            )
        kept, _ = _indices(self.train, len(self.train) - examples, seed)
        return dataclasses.replace(self, train=self.train.rows(kept))

    def digest(self) -> str:
        """Returns a hash of all examples, as 16 hexadecimal digits; of a stream see its own."""
        parts = (self.train, self.validation, self.test)
        if all(isinstance(part, Examples) for part in parts):
            return digest_of(*parts)  # type: ignore[arg-type]
        texts = [digest_of(p) if isinstance(p, Examples) else p.digest() for p in parts]  # type: ignore[attr-defined]
        return digest_of(Examples(np.array(texts), ()))

    def __str__(self) -> str:
        return (
            f"{self.name}: {len(self.train)} train, {len(self.validation)} validation, "
            f"{len(self.test)} test examples"
        )


def data_parts(
    train_data: UserData,
    validation_data: UserData | None = None,
    test_data: UserData | None = None,
    *,
    name: str = "data",
    seed: int = 0,
    model: keras.Model | None = None,
    argument: str = "train_data",
    groups: Any = None,
) -> DataParts:
    """Returns data of any kind in three parts, after checks of all of it.

    Streams are read once here. Where only validation data is given, one half of it becomes test
    data; where a part is missing otherwise, a tenth of the training data is split off for it.
    Targets that are names of classes become numbers, in the sorted order of the names.

    Example:
        >>> x = {"age": [20.0, 30.0] * 20, "city": [1, 2] * 20}
        >>> parts = data_parts((x, [0, 1] * 20))
        >>> len(parts.train), len(parts.validation), len(parts.test)
        (32, 4, 4)
        >>> print(parts.notes[1])
        10% of train_data was split off as test data; the model may have been trained on it

    Args:
        train_data: (x, y) or (x, y, sample_weight), in memory, in any nest of lists, tuples and
            dictionaries of arrays (examples, ...); or in batches of this form: a
            `tf.data.Dataset`, a `keras.utils.PyDataset`, or a function that returns a new
            iterator at each call.
        validation_data: Data for choosing among models, of any of these kinds.
        test_data: Data for the final measurement.
        name: Name of the data.
        seed: Seed of the splits.
        model: The model that takes the inputs, which are checked against it; None: they are not.
        argument: Name of the argument `train_data`, for messages.
        groups: A group of each example of the data that the test data is of: `test_data`, else
            `validation_data`, else `train_data`; None: there are none.

    Raises:
        ValueError: Data is of another kind, empty, endless, can be read once only, does not fit
            the model, holds a number that is not finite or a class that the training data does
            not have, or can't be split.
    """
    train = example_set(train_data, argument, model)
    names = ClassNames.of(train, argument, model)
    train = names.numbered(train, argument)
    validation, test = (
        None if data is None else names.numbered(example_set(data, what, model), what)
        for data, what in ((validation_data, "validation_data"), (test_data, "test_data"))
    )
    train, validation, test = _grouped(groups, train, validation, test)
    notes: list[str] = names.notes()
    if validation is not None and test is None:
        validation, test = _halved(validation, seed)
        notes.append(
            f"validation_data was halved: {len(validation)} examples for choosing among models, "
            f"{len(test)} for the final measurement"
        )
    elif validation is None or test is None:
        missing = ["validation"] * (validation is None) + ["test"] * (test is None)
        train, held = _split_off(train, len(missing), seed, argument)
        validation = held[0] if validation is None else validation
        test = held[-1] if test is None else test
        notes += [
            f"10% of {argument} was split off as {each} data; the model may have been trained on it"
            for each in missing
        ]
    for part, what in ((validation, "validation_data"), (test, "test_data")):
        if isinstance(part, StreamedExamples) and not part.repeats:
            raise ValueError(
                f"{what} must give the same examples in the same order in each pass, since models "
                "are compared example by example, got others: leave out shuffling and augmentation"
            )
    return DataParts(name, train, validation, test, tuple(notes), names.only())


def _grouped(
    groups: Any, train: Part, validation: Part | None, test: Part | None
) -> tuple[Part, Part | None, Part | None]:
    """Returns the parts with groups in that of which the test data is."""
    if groups is None:
        return train, validation, test
    holder = next(part for part in (test, validation, train) if part is not None)
    if not isinstance(holder, Examples):
        raise ValueError("groups must be None where the test data comes in batches, got groups")
    grouped = dataclasses.replace(holder, groups=np.asarray(groups))
    if test is not None:
        return train, validation, grouped
    return (train, grouped, test) if validation is not None else (grouped, validation, test)


def example_set(data: UserData, what: str, model: keras.Model | None = None) -> Part:
    """Returns one part of a user's data after checks of all of it.

    Args:
        data: As for :func:`data_parts`.
        what: Name of the argument, for the error message.
        model: The model that takes the inputs; None: they are not checked against it.

    Raises:
        ValueError: The data can't be used.
    """
    fitted = None if model is None else inputs_fitting(model, what)
    if isinstance(data, StreamedExamples):
        return data
    if isinstance(data, Examples):
        examples = checked_examples(data, what)
    elif isinstance(data, tuple):
        examples = examples_of(data, what)
    elif is_stream(data):
        stream = StreamedExamples(data, what, fitted)
        _ = stream.found, stream.repeats  # reads it once, and its begin once more
        return stream
    else:
        raise ValueError(f"{what} must be {_kinds()}, got {_hinted(data)}")
    check_some_weight(has_weight(examples), what)
    return examples if fitted is None else dataclasses.replace(examples, x=fitted(examples.x))


def _kinds() -> str:
    return f"(x, y), (x, y, sample_weight), {KINDS}"


def _hinted(data: Any) -> str:
    if isinstance(data, str | os.PathLike):
        return repr(os.fspath(data))
    pair = isinstance(data, list) and 2 <= len(data) <= 3
    hint = ": a list holds several inputs, (x, y) must be a tuple" if pair else ""
    alone = isinstance(data, dict) or hasattr(data, "shape")
    hint = (
        ": inputs without targets; where they are the targets themselves, (x, x)" if alone else hint
    )
    return f"{described(data)}{hint}"


def _halved(part: Part, seed: int) -> tuple[Part, Part]:
    """Returns validation and test data from validation data."""
    if isinstance(part, Examples):
        if len(part) < 2:
            raise ValueError(
                "validation_data must hold at least 2 examples to become validation and test "
                f"data, got {len(part)}: give test_data"
            )
        test, validation = _indices(part, len(part) // 2, seed)
        return part.rows(validation), part.rows(test)
    number = _number_of_batches(part, "validation_data", 2, "test_data")
    every = np.arange(number)
    return (
        part.share(every[::2], "validation_data"),
        part.share(every[1::2], "test_data"),
    )


def _split_off(train: Part, parts: int, seed: int, what: str) -> tuple[Part, list[Part]]:
    """Returns training data and the parts that were split off from it."""
    if isinstance(train, Examples):
        if len(train) < FEWEST:
            raise ValueError(
                f"{what} must hold at least {FEWEST} examples where parts are split off, got "
                f"{len(train)}: give validation_data and test_data"
            )
        count = max(1, round(PART * len(train)))
        kept, held = _indices(train, count * parts, seed)
        rest = train.rows(held)
        if parts == 1:
            return train.rows(kept), [rest]
        second, first = _indices(rest, count, seed)
        return train.rows(kept), [rest.rows(first), rest.rows(second)]
    missing = "validation_data and test_data" if parts == 2 else "validation_data"
    number = _number_of_batches(train, what, FEWEST, missing)
    every = np.arange(number)
    place = every % min(PERIOD, number)
    taken = [0, min(PERIOD, number) // 2][:parts]
    held_parts: list[Part] = [train.share(every[place == each], what) for each in taken]
    return train.share(every[~np.isin(place, taken)], what), held_parts


def _number_of_batches(part: StreamedExamples, what: str, fewest: int, missing: str) -> int:
    """Returns the number of batches of a stream that can be split by their positions."""
    number = len(part.found.sizes)
    if number < fewest:
        raise ValueError(
            f"{what} must hold at least {fewest} batches where parts are split off, got {number}: "
            f"give {missing}"
        )
    if part.source.reorders or not part.repeats or not part.repeats_all():
        raise ValueError(
            f"{what} must give the same batches in each pass where parts are split off, got "
            f"others (it is shuffled or augmented, or has an on_epoch_end): give {missing}"
        )
    return number


def _indices(part: Examples, held: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers of examples that are kept and held, by class where there are classes."""
    labels, by_class = np.zeros(len(part), int), False
    y = part.y
    if isinstance(y, np.ndarray) and y.dtype.kind in "iu" and y.size == len(part):
        labels = y.reshape(-1)
        classes, counts = np.unique(labels, return_counts=True)
        smaller = min(held, len(part) - held)
        by_class = bool(counts.min() >= 2 and smaller >= len(classes))
    return draw(labels, held, seed, by_class)
