"""Targets that are names of classes, turned into the numbers that losses take.

Names are numbered in the order of Python's `sorted`: "Bird" is before "ant", "10" before "9". A
model that was trained before must have been trained on numbers in this order, which the notes of
the data say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tfnas.data.examples import Examples, Nested
from tfnas.data.model_inputs import model_outputs

if TYPE_CHECKING:
    import keras

_Part = TypeVar("_Part")
_SHOWN = 20  # names in a note


@dataclasses.dataclass(frozen=True)
class ClassNames:
    """The class names of targets, in the order of their numbers.

    Example:
        >>> names = ClassNames.of(Examples(np.zeros(3), np.array(["no", "yes", "no"])))
        >>> names.numbered(Examples(np.zeros(2), np.array(["yes", "no"])), "test_data").y
        array([1, 0])
        >>> names.notes()
        ['class names of the targets are numbered in sorted order: 0 no, 1 yes']

    Args:
        by_target: Names in their order, by the name of the target: a key of its dictionary, an
            index of its list, or "" where targets are one array.
        source: Name of the argument with the training data, for messages.
    """

    by_target: Mapping[str, tuple[str, ...]]
    source: str = "train_data"

    @classmethod
    def of(
        cls, train: Any, source: str = "train_data", model: keras.Model | None = None
    ) -> ClassNames:
        """Returns the class names of training data; empty where there are none.

        Args:
            train: The training data; only examples in memory may have names.
            source: Name of the argument.
            model: The model, whose outputs must have as many units; None: not checked.

        Raises:
            ValueError: There are more or fewer names than classes of the output.
        """
        found: dict[str, tuple[str, ...]] = {}

        def collect(name: str, leaf: np.ndarray) -> np.ndarray:
            if _is_text(leaf):
                found[name] = tuple(sorted(set(_texts(leaf).tolist())))
            return leaf

        if isinstance(train, Examples):
            _by_name(collect, train.y)
        if model is not None and found:
            _check_counts(found, model, source)
        return cls(found, source)

    def numbered(self, part: _Part, what: str) -> _Part:
        """Returns a part of the data with numbers for names.

        Args:
            part: Examples with the structure of the training data; a stream stays as it is.
            what: Name of the argument, for messages.

        Raises:
            ValueError: A name is none of the training data.
        """
        if not self.by_target or not isinstance(part, Examples):
            return part

        def numbers(name: str, leaf: np.ndarray) -> np.ndarray:
            names = self.by_target.get(name)
            if names is None:
                return leaf
            texts = _texts(leaf)
            if unknown := sorted(set(texts.tolist()) - set(names)):
                raise ValueError(
                    f"targets{_named(name)} of {what} must be classes of {self.source}, "
                    f"{', '.join(names)[:200]}, got {unknown[0]!r}"
                )
            return np.searchsorted(np.array(names), texts)

        return dataclasses.replace(part, y=_by_name(numbers, part.y))

    def notes(self) -> list[str]:
        """Returns a sentence for each target on the numbers of its names."""
        found = []
        for name, names in self.by_target.items():
            pairs = [f"{number} {text}" for number, text in enumerate(names[:_SHOWN])]
            more = [f"and {len(names) - _SHOWN} more"] * (len(names) > _SHOWN)
            of = repr(name) if name else "the targets"
            found.append(
                f"class names of {of} are numbered in sorted order: {', '.join([*pairs, *more])}"
            )
        return found

    def only(self) -> tuple[str, ...]:
        """Returns the names where there is one target with names; else ()."""
        return next(iter(self.by_target.values())) if len(self.by_target) == 1 else ()


def _check_counts(found: Mapping[str, Sequence[str]], model: keras.Model, source: str) -> None:
    outputs = model_outputs(model)
    sizes = {output.name: output.shape[-1] if output.shape else 1 for output in outputs}
    order = list(sizes)
    for name, names in found.items():
        output = name if name in sizes else order[int(name) if name.isdecimal() else 0]
        units = sizes[output]
        classes = 2 if units == 1 else units
        if classes is not None and len(names) != classes:
            raise ValueError(
                f"targets{_named(name)} of {source} must be {classes} class names, for the "
                f"{units} unit{'s' * (units != 1)} of the output {output!r}, or numbers, got "
                f"{len(names)} names: {', '.join(names)[:200]}"
            )


def _by_name(
    function: Callable[[str, np.ndarray], np.ndarray], nested: Nested, name: str = ""
) -> Nested:
    """Applies a function of (name, array) to each target."""
    if isinstance(nested, dict):
        return {key: _by_name(function, value, str(key)) for key, value in nested.items()}
    if isinstance(nested, list | tuple):
        return type(nested)(_by_name(function, part, str(i)) for i, part in enumerate(nested))
    return function(name, nested)


def _is_text(leaf: np.ndarray) -> bool:
    return leaf.dtype.kind in "SUO" and (leaf.ndim == 1 or leaf.shape[1:] == (1,))


def _texts(leaf: np.ndarray) -> np.ndarray:
    """Returns names as text, (examples,)."""
    values = leaf.reshape(-1).tolist()
    return np.array([each.decode() if isinstance(each, bytes) else str(each) for each in values])


def _named(name: str) -> str:
    return f" {name!r}" if name else ""
