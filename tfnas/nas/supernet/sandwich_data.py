"""The batches that shared weights are trained on, from the arguments of `keras.Model.fit`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfnas.data.reading import Batch, is_dataset, is_endless, is_py_dataset, weighted_batches

_REFUSED = ("class_weight", "steps_per_epoch", "initial_epoch", "validation_split")


class SandwichData:
    """Training examples, batch by batch.

    Args:
        args: Positional arguments of `keras.Model.fit`.
        kwargs: Its keyword arguments.

    Raises:
        ValueError: An argument can't be used for weights that networks share, the targets are
            missing, or the data set is endless.
    """

    def __init__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        bound = inspect.signature(keras.Model.fit).bind_partial(None, *args, **kwargs).arguments
        for name in _REFUSED:
            if bound.get(name):
                raise ValueError(
                    f"{name} must not be given to the search of a SupernetTuner, whose shared "
                    f"weights are trained in a loop of its own, got {bound[name]!r}"
                )
        self.x: Any = bound.get("x")
        self.is_stream = is_dataset(self.x)
        self.batch_size = int(bound.get("batch_size") or 32)
        if self.is_stream:
            if is_endless(self.x):
                raise ValueError("x must end, got an endless data set: take(n) it first")
            return
        targets, weights = bound.get("y"), bound.get("sample_weight")
        if targets is None or not hasattr(self.x, "__array__"):
            raise ValueError(
                "x and y must be arrays of images and targets, or x a batched tf.data.Dataset or "
                f"PyDataset of both, got {type(self.x).__name__} and {type(targets).__name__}"
            )
        self.x, self.y = np.asarray(self.x), np.asarray(targets)
        self.weights = np.ones(len(self.x)) if weights is None else np.asarray(weights)
        if not len(self.x) or {len(self.y), len(self.weights)} != {len(self.x)}:
            raise ValueError(
                f"y must hold one target per example, got {len(self.y)} of {len(self.x)} examples"
            )

    @property
    def steps(self) -> int:
        """Number of batches of an epoch; a data set that does not know it is read once."""
        if not self.is_stream:
            return -(-len(self.x) // self.batch_size)
        if is_py_dataset(self.x):
            return int(self.x.num_batches)
        known = int(self.x.cardinality())
        return known if known >= 0 else sum(1 for _ in self.x)

    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Yields the batches of an epoch.

        Args:
            rng: Draws the order of arrays; a data set has its own.
        """
        if self.is_stream:
            yield from map(_with_weights, weighted_batches(self.x, "x"))
            return
        order = rng.permutation(len(self.x))
        for start in range(0, len(order), self.batch_size):
            part = order[start : start + self.batch_size]
            yield self.x[part], self.y[part], self.weights[part].astype(np.float32)


def _with_weights(batch: Batch) -> Batch:
    x, y, weights = batch
    if y is None:
        raise ValueError("x must give batches of images and targets, got images alone")
    ones = np.ones(len(x), np.float32)
    return x, y, ones if weights is None else np.asarray(weights, np.float32)
