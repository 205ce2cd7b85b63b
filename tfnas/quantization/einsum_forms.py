"""The product of two activations as TFLite's BATCH_MATMUL computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfnas.graph.registered_layers import register_layer
from tfnas.quantization.einsum_axes import count, ordered, product, shaped, sizes_of
from tfnas.quantization.quantized_kernel import PACKAGE


@register_layer(macs=lambda layer, shapes, _: layer.macs(shapes))
@keras.saving.register_keras_serializable(PACKAGE)
class IntegerEinsum(keras.layers.Layer):
    """The product of two activations, by one matrix product of batches.

    Args:
        equation: As of `keras.ops.einsum`.
    """

    def __init__(self, equation: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.equation = equation
        self.supports_masking = True  # it takes masked tensors, and passes no mask on

    def call(self, first: Any, second: Any) -> Any:
        """Returns the product."""
        axes = product(self.equation, (len(first.shape), len(second.shape)))
        assert axes is not None  # checked where the layer was placed
        batch, rows, columns = axes.batch, axes.own(axes.first), axes.own(axes.second)
        summed = axes.summed
        sizes = dict(zip(axes.first, sizes_of(first), strict=True))
        sizes.update(zip(axes.second, sizes_of(second), strict=True))
        by_rows = axes.second == batch + columns + summed
        first = _merged(first, axes.first, (batch, rows, summed), sizes)
        parts = (batch, columns, summed) if by_rows else (batch, summed, columns)
        second = _merged(second, axes.second, parts, sizes)
        found = tf.matmul(first, second, transpose_b=by_rows)
        if not (len(rows) == len(columns) == 1):
            found = shaped(found, [sizes[a] for a in batch + rows + columns])
        return ordered(found, batch + rows + columns, axes.output)

    def compute_mask(self, *_: Any) -> None:
        """Returns None: the axes are others."""

    def macs(self, shapes: Sequence[Any]) -> int | None:
        """Returns the multiply-accumulates of one example; None where a size is unknown.

        Args:
            shapes: Shapes of both inputs.
        """
        axes = product(self.equation, [len(shape) for shape in shapes])
        if axes is None:
            return None
        sizes = dict(zip(axes.first, shapes[0], strict=True))
        sizes.update(zip(axes.second, shapes[1], strict=True))
        sizes[axes.first[0]] = 1  # the batch
        return None if None in sizes.values() else count(sizes, "".join(sizes))

    def compute_output_shape(self, first_shape: Any, second_shape: Any) -> Any:
        """Returns the shape of the product."""
        axes = product(self.equation, (len(first_shape), len(second_shape)))
        assert axes is not None
        sizes = dict(zip(axes.second, second_shape, strict=True))
        sizes.update(
            (a, n) for a, n in zip(axes.first, first_shape, strict=True) if sizes.get(a) is None
        )
        return tuple(sizes[a] for a in axes.output)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "equation": self.equation}


@register_layer(macs=0)
@keras.saving.register_keras_serializable(PACKAGE)
class IntegerRepeat(keras.layers.Layer):
    """A repetition of each place of an axis by a lookup, which moves integers on all runtimes.

    Args:
        repeats: How often.
        axis: The axis, whose size is known.
    """

    def __init__(self, repeats: int, axis: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.repeats, self.axis = repeats, axis
        self.supports_masking = True  # as above

    def call(self, x: Any) -> Any:
        """Returns the repeated places."""
        places = np.repeat(np.arange(x.shape[self.axis], dtype=np.int32), self.repeats)
        return tf.gather(x, places, axis=self.axis)

    def compute_mask(self, *_: Any) -> None:
        """Returns None: the axes are others."""

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the input's shape with more places."""
        sizes = list(input_shape)
        sizes[self.axis] *= self.repeats
        return tuple(sizes)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "repeats": self.repeats, "axis": self.axis}


def _merged(x: Any, letters: str, parts: tuple[str, str, str], sizes: dict[str, Any]) -> Any:
    """A tensor of the axes of a batch and two more, each of which may stand for several."""
    x = ordered(x, letters, "".join(parts))
    if all(len(part) == 1 for part in parts[1:]):
        return x
    batch = [sizes[a] for a in parts[0]]
    return shaped(x, [*batch, *(count(sizes, part) for part in parts[1:])])
