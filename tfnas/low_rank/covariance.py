"""Second moments of what layers multiply their kernels with, on typical data.

An input of a convolution is one element of a patch, padding included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfnas.graph.traversal import visit

PATCHES = 32_000  # read of a layer in all, about; or so many times its inputs, if more:
AT_LEAST = 8


class InputCovariance:
    """Sums over inputs, patch by patch.

    Example:
        >>> found = InputCovariance(2)
        >>> found.add(np.array([[1.0, 0.0], [3.0, 0.0]]))
        >>> found.mean.tolist(), found.second(central=True).round(3).tolist()
        ([2.0, 0.0], [[1.0, 0.0], [0.0, 0.0]])

    Args:
        inputs: Number of inputs.
    """

    def __init__(self, inputs: int) -> None:
        self.count = 0
        self._shift = np.zeros(inputs)  # about the first batch's mean, for exactness
        self._sum = np.zeros(inputs)
        self._squares = np.zeros((inputs, inputs))

    def add(self, rows: np.ndarray) -> None:
        """Adds inputs, (n, inputs)."""
        rows = rows.astype(np.float64)
        if not self.count:
            self._shift = rows.mean(axis=0)
        rows -= self._shift
        self._squares += rows.T @ rows
        self._sum += rows.sum(axis=0)
        self.count += len(rows)

    @property
    def mean(self) -> np.ndarray:
        """Mean of each input."""
        return self._shift + self._sum / self.count

    def second(self, central: bool) -> np.ndarray:
        """Returns mean x^T x, (inputs, inputs), about the means where `central`."""
        moved = self._sum / self.count
        found = self._squares / self.count - np.outer(moved, moved)
        return found if central else found + np.outer(self.mean, self.mean)

    def shrunk(self, central: bool) -> np.ndarray:
        """Returns the second moments to choose factors by, which trust few patches less.

        The products of different inputs are drawn to 0, further where patches are few:
        inputs / (inputs + count) would be the share of noise in each if inputs were white and
        patches independent. The squares stay as they are.
        """
        found = self.second(central)
        inputs = len(found)
        shrunk = found * (1.0 - 0.6 * inputs / (inputs + self.count))
        np.fill_diagonal(shrunk, np.diag(found))
        return shrunk


def measure(
    model: Any, layers: Sequence[Any], batches: Sequence[Any]
) -> dict[int, InputCovariance]:
    """Returns the moments of each layer's inputs, by the layer's id.

    Args:
        model: The model.
        layers: Some of its Dense and convolution layers.
        batches: The model's inputs, batch by batch; one is in memory at a time.

    Raises:
        ValueError: Data leads to values that are not finite.
    """
    import keras

    found: dict[int, InputCovariance] = {}
    examples = sum(len(keras.tree.flatten(batch)[0]) for batch in batches)
    for batch in batches:
        for visit_ in visit(model, [batch], layers):
            layer = visit_.layer
            inputs = math.prod(layer.kernel.shape[:-1])
            per_example = math.ceil(max(PATCHES, AT_LEAST * inputs) / examples)
            moments = found.setdefault(id(layer), InputCovariance(inputs))
            for tensor in visit_.inputs:
                rows = patches(layer, tensor, per_example)
                if not np.isfinite(rows).all():
                    raise ValueError(
                        f"data must lead to finite values, got others before layer {layer.name!r}"
                    )
                moments.add(rows)
    return found


def patches(layer: Any, inputs: Any, per_example: int) -> np.ndarray:
    """Returns what a layer multiplies its kernel with, (n, inputs), float32.

    Args:
        layer: A Dense layer, or a convolution of one or two dimensions, channels last.
        inputs: A batch of its inputs.
        per_example: Positions of an example at most, at random but always the same ones.
    """
    import keras

    array = np.asarray(keras.ops.convert_to_numpy(inputs)).astype(np.float32, copy=False)
    if isinstance(layer, keras.layers.Dense):
        array = array.reshape(len(array), -1, array.shape[-1])
        return array[:, _sampled(array.shape[1], per_example)].reshape(-1, array.shape[-1])
    if isinstance(layer, keras.layers.Conv1D):
        array = array[:, :, None]
    windows = _windows(layer, array)
    high, wide = windows.shape[1:3]
    index = _sampled(high * wide, per_example)
    taken = windows[:, index // wide, index % wide]  # (examples, index, channels, *size)
    taken = taken.transpose(0, 1, 3, 4, 2)
    return np.ascontiguousarray(taken).reshape(-1, math.prod(taken.shape[2:]))


def _windows(layer: Any, array: np.ndarray) -> np.ndarray:
    """A view of all patches, (examples, high, wide, channels, *size)."""
    size, strides, dilation = (
        (*given, 1)[:2] for given in (layer.kernel_size, layer.strides, layer.dilation_rate)
    )
    spans = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    pads = [(0, 0)]
    for length, span, stride in zip(array.shape[1:3], spans, strides, strict=True):
        total = max((math.ceil(length / stride) - 1) * stride + span - length, 0)
        before = {"same": total // 2, "valid": 0, "causal": span - 1}[layer.padding]
        pads.append((before, total - before if layer.padding == "same" else 0))
    array = np.pad(array, [*pads, (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(array, spans, axis=(1, 2))
    return windows[:, :: strides[0], :: strides[1], :, :: dilation[0], :: dilation[1]]


def _sampled(count: int, wanted: int) -> np.ndarray:
    if wanted >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).permutation(count)[:wanted])
