"""The form of batches: shape and type of each of their arrays, which all batches share."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from tfnas.data.examples import Nested, as_tuples, leaves, mapped

if TYPE_CHECKING:
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class LeafForm:
    """Form of an array of each batch.

    Args:
        shape: Its shape without the examples; None: a size that differs from batch to batch.
        dtype: Name of its type; "str" and "bytes" of strings of any length.
    """

    shape: tuple[int | None, ...]
    dtype: str

    @classmethod
    def of(cls, array: np.ndarray) -> LeafForm:
        """Returns the form of an array.

        Args:
            array: The array, (examples, ...).
        """
        texts = {"U": "str", "S": "bytes"}
        return cls(array.shape[1:], texts.get(array.dtype.kind, array.dtype.name))

    def with_other(self, other: LeafForm) -> LeafForm:
        """Returns the form of both arrays.

        Args:
            other: The form of the same array in another batch.

        Raises:
            ValueError: They have other types, or numbers of dimensions.
        """
        if self.dtype != other.dtype or len(self.shape) != len(other.shape):
            raise ValueError(f"{self} and then {other}")
        pairs = zip(self.shape, other.shape, strict=True)
        return LeafForm(tuple(a if a == b else None for a, b in pairs), self.dtype)

    def __str__(self) -> str:
        sizes = ", ".join("any" if size is None else str(size) for size in self.shape)
        return f"{self.dtype} (batch, {sizes})" if sizes else f"{self.dtype} (batch,)"


def signature(form: Nested) -> Nested:
    """Returns the `tf.TensorSpec` of each array of a batch, in tuples and dictionaries.

    Args:
        form: The form of each array.
    """
    import tensorflow as tf

    def spec(leaf: LeafForm) -> tf.TensorSpec:
        text = leaf.dtype in ("object", "str", "bytes")
        return tf.TensorSpec([None, *leaf.shape], tf.string if text else tf.as_dtype(leaf.dtype))

    return as_tuples(mapped(spec, form))


def merged(one: Nested, other: Nested) -> Nested:
    """Returns the common form of two batches.

    Args:
        one: The form of each array of a batch.
        other: The same of another batch.

    Raises:
        ValueError, KeyError, TypeError: There is none.
    """
    if isinstance(one, dict):
        if not isinstance(other, dict) or one.keys() != other.keys():
            raise ValueError(f"{_outline(one)} and then {_outline(other)}")
        return {key: merged(one[key], other[key]) for key in one}
    if isinstance(one, list | tuple):
        if not isinstance(other, list | tuple) or len(one) != len(other):
            raise ValueError(f"{_outline(one)} and then {_outline(other)}")
        return type(one)(merged(a, b) for a, b in zip(one, other, strict=True))
    if not isinstance(other, LeafForm):
        raise ValueError(f"an array and then {_outline(other)}")
    return one.with_other(other)


def _outline(form: Nested) -> str:
    if isinstance(form, dict):
        return f"the keys {sorted(map(str, form))}"
    return f"{len(leaves(form))} array{'s' * (len(leaves(form)) != 1)}"
