"""Measures the second moments of layers' inputs on typical data.

The inputs of a convolution are the elements of a patch, padding included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfnas.graph.traversal import visit

PATCHES = 32_000  # read per layer, about; or this many times its inputs, if that is more:
PATCHES_PER_INPUT = 8


class InputCovariance:
    """Accumulates the mean and the second moments of a layer's inputs.

    Example:
        >>> covariance = InputCovariance(2)
        >>> covariance.add(np.array([[1.0, 0.0], [3.0, 0.0]]))
        >>> covariance.mean.tolist(), covariance.second_moments(central=True).round(3).tolist()
        ([2.0, 0.0], [[1.0, 0.0], [0.0, 0.0]])

    Args:
        inputs: Number of inputs: those of a Dense layer, or height * width * channels of a patch.
    """

    def __init__(self, inputs: int) -> None:
        self.count = 0
        self._shift = np.zeros(
            inputs
        )  # sums are taken around the first batch's mean, for precision
        self._sum = np.zeros(inputs)
        self._squares = np.zeros((inputs, inputs))

    def add(self, rows: np.ndarray) -> None:
        """Adds rows of inputs.

        Args:
            rows: The rows, (n, inputs).
        """
        rows = rows.astype(np.float64)
        if not self.count:
            self._shift = rows.mean(axis=0)
        rows -= self._shift
        self._squares += rows.T @ rows
        self._sum += rows.sum(axis=0)
        self.count += len(rows)

    @property
    def mean(self) -> np.ndarray:
        """Returns the mean of each input, (inputs,)."""
        return self._shift + self._sum / self.count

    def second_moments(self, central: bool) -> np.ndarray:
        """Returns the mean of x^T x, (inputs, inputs); with `central` the covariance.

        Args:
            central: Whether the mean is subtracted.
        """
        delta = self._sum / self.count
        covariance = self._squares / self.count - np.outer(delta, delta)
        return covariance if central else covariance + np.outer(self.mean, self.mean)

    def shrinkage_estimate(self, central: bool) -> np.ndarray:
        """Returns second moments with shrinkage, for choosing factors from few patches.

        Off-diagonal elements are reduced, more so with few patches: for white inputs and
        independent patches the fraction of noise in them would be inputs / (inputs + count).
        The diagonal is unchanged.

        Args:
            central: Whether the mean is subtracted.

        Returns:
            The estimate, (inputs, inputs).
        """
        moments = self.second_moments(central)
        inputs = len(moments)
        estimate = moments * (1.0 - 0.6 * inputs / (inputs + self.count))
        np.fill_diagonal(estimate, np.diag(moments))
        return estimate


def measure_covariances(
    model: Any, layers: Sequence[Any], batches: Sequence[Any]
) -> dict[int, InputCovariance]:
    """Runs a model on data and returns id of each layer -> the covariance of its inputs.

    Args:
        model: A built Keras 3 model.
        layers: Some of its Dense and convolution layers.
        batches: The model's inputs, batch by batch; one is in memory at a time.

    Returns:
        Maps the Python id of each layer to the covariance of its inputs.

    Raises:
        ValueError: The data leads to values that are not finite.
    """
    import keras

    covariances: dict[int, InputCovariance] = {}
    examples = sum(len(keras.tree.flatten(batch)[0]) for batch in batches)
    for batch in batches:
        for visit_ in visit(model, [batch], layers):
            layer = visit_.layer
            inputs = math.prod(layer.kernel.shape[:-1])
            per_example = math.ceil(max(PATCHES, PATCHES_PER_INPUT * inputs) / examples)
            covariance = covariances.setdefault(id(layer), InputCovariance(inputs))
            for tensor in visit_.inputs:
                rows = patches(layer, tensor, per_example)
                if not np.isfinite(rows).all():
                    raise ValueError(
                        f"data must lead to finite values, got others before layer {layer.name!r}"
                    )
                covariance.add(rows)
    return covariances


def patches(layer: Any, inputs: Any, per_example: int) -> np.ndarray:
    """Returns the rows that a layer multiplies with its kernel, (n, inputs), in float32.

    Args:
        layer: A Dense layer, or a convolution of one or two dimensions, channels last.
        inputs: A batch of its inputs.
        per_example: Maximum number of positions per example, drawn with a fixed seed.
    """
    import keras

    array = np.asarray(keras.ops.convert_to_numpy(inputs)).astype(np.float32, copy=False)
    if isinstance(layer, keras.layers.Dense):
        array = array.reshape(len(array), -1, array.shape[-1])
        return array[:, _sampled_positions(array.shape[1], per_example)].reshape(
            -1, array.shape[-1]
        )
    if isinstance(layer, keras.layers.Conv1D):
        array = array[:, :, None]
    windows = _windows(layer, array)
    height, width = windows.shape[1:3]
    index = _sampled_positions(height * width, per_example)
    sample = windows[:, index // width, index % width]  # (examples, index, channels, *size)
    sample = sample.transpose(0, 1, 3, 4, 2)
    return np.ascontiguousarray(sample).reshape(-1, math.prod(sample.shape[2:]))


def _windows(layer: Any, array: np.ndarray) -> np.ndarray:
    """A view of all patches, (examples, height, width, channels, *size)."""
    size, strides, dilation = (
        (*setting, 1)[:2] for setting in (layer.kernel_size, layer.strides, layer.dilation_rate)
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


def _sampled_positions(count: int, limit: int) -> np.ndarray:
    if limit >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).permutation(count)[:limit])
