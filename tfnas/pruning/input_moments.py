"""Second moments of a layer's inputs, for the layer as a matrix product.

A kernel becomes a matrix with one row per output: (outputs, inputs) for Dense layers and
convolutions, where an input is one element of a patch; (channels x multiplier, positions) for a
depthwise convolution, where each row has its own Hessian.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfnas.graph.tensor_columns import examples_of


@dataclasses.dataclass(frozen=True, eq=False)
class InputMoments:
    """Moments of the inputs x' of the pruned layer and x of the original layer.

    Args:
        hessian: mean x' x'^T, (inputs, inputs) or (rows, inputs, inputs).
        mixed: mean x' x^T, of the same shape.
        target: mean x x^T, of the same shape.
        mean: mean x', (inputs,) or (rows, inputs).
        original_mean: mean x, of the same shape.
        central: Whether the means are subtracted.
        count: Number of patches: examples times positions.
    """

    hessian: np.ndarray
    mixed: np.ndarray
    target: np.ndarray
    mean: np.ndarray
    original_mean: np.ndarray
    central: bool
    count: int

    def cross(self, weights: np.ndarray) -> np.ndarray:
        """Returns mean x' y of each row, where y is the original output; (rows, inputs).

        Args:
            weights: Weights of the original, (rows, inputs).
        """
        if self.mixed.ndim == 2:
            return weights @ self.mixed.T
        return np.einsum("rij,rj->ri", self.mixed, weights)

    def mean_output(self, weights: np.ndarray, original: bool = False) -> np.ndarray:
        """Returns the mean output of each row without bias, (rows,).

        Args:
            weights: Weights, (rows, inputs).
            original: Whether the inputs are those of the original model.
        """
        mean = self.original_mean if original else self.mean
        return weights @ mean if mean.ndim == 1 else (weights * mean).sum(axis=1)

    def error(
        self,
        solved: np.ndarray,
        weights: np.ndarray,
        scale: np.ndarray,
        gap: GapMoments | None = None,
    ) -> float:
        """Returns the squared output error relative to the mean square of the original output.

        Args:
            solved: Weights of the pruned layer, (rows, inputs).
            weights: Weights of the original layer, (rows, inputs).
            scale: Weight of each row's error, (rows,).
            gap: Moments of a gap that is added to the target; None: no gap.
        """
        cross, power = self.cross(weights), quadratic(weights, self.target)
        target_power = power
        if gap is not None:
            cross, target_power = cross + gap.cross, power + gap.power
        squared = quadratic(solved, self.hessian) - 2 * (solved * cross).sum(axis=1)
        error, total = scale @ (squared + target_power), scale @ power
        return max(float(error), 0.0) / float(total) if total > 0 else 0.0

    def together(self, other: InputMoments) -> InputMoments:
        """Returns the moments of the patches of both.

        Args:
            other: Moments of other examples of the same layer, central as these or not.
        """
        total = self.count + other.count
        share, rest = self.count / total, other.count / total
        apart = self.mean - other.mean
        apart_original = self.original_mean - other.original_mean

        def joined(name: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
            squares = share * getattr(self, name) + rest * getattr(other, name)
            if self.central:
                squares += share * rest * a[..., :, None] * b[..., None, :]
            return np.asarray(squares)

        return InputMoments(
            joined("hessian", apart, apart),
            joined("mixed", apart, apart_original),
            joined("target", apart_original, apart_original),
            share * self.mean + rest * other.mean,
            share * self.original_mean + rest * other.original_mean,
            self.central,
            total,
        )

    def of_rows(self, rows: np.ndarray) -> InputMoments:
        """Returns the moments of some rows: these themselves where all rows share them.

        Args:
            rows: Their numbers.
        """
        if self.hessian.ndim == 2:
            return self
        names = ("hessian", "mixed", "target", "mean", "original_mean")
        return dataclasses.replace(self, **{name: getattr(self, name)[rows] for name in names})

    def shrinkage(self, least: float) -> float:
        """Returns the amount of shrinkage to the diagonal, more if there are few patches.

        inputs / (inputs + count) is the fraction of noise in each moment if the inputs are
        white and the patches independent.

        Args:
            least: The least amount, in [0, 1].
        """
        inputs = self.hessian.shape[-1]
        return max(least, min(1.0, 0.6 * inputs / (inputs + self.count)))


def measure(
    kernel: Any, inputs: Sequence[Any], originals: Sequence[Any], rows: int, central: bool
) -> InputMoments:
    """Measures the moments of a layer's inputs over all batches.

    Args:
        kernel: A kernel whose :func:`unsupported_reason` is None.
        inputs: Inputs of its layer, one array per batch.
        originals: Inputs of the original layer, for the same examples.
        rows: Approximate number of patches to read in total.
        central: Whether to subtract the means.

    Returns:
        The moments, of all batches together.

    Raises:
        ValueError: There is no batch.
    """
    per_example = max(1, rows // max(1, examples_of(inputs)))
    equal = inputs is originals
    sums = None
    for batch, original in zip(inputs, originals, strict=True):
        a = patches(kernel.layer, batch, per_example)
        b = a if equal else patches(kernel.layer, original, per_example)
        sums = sums or _Sums(a, b)
        sums.add(a, b)
    if sums is None:
        raise ValueError(f"inputs of {kernel.name!r} must hold at least one batch, got none")
    return sums.moments(central, getattr(kernel.layer, "depth_multiplier", 0))


@dataclasses.dataclass(frozen=True, eq=False)
class GapMoments:
    """Moments of a gap that a layer should add to its original output, means subtracted.

    Args:
        cross: mean x' gap of each output, (rows, inputs).
        power: mean (y + gap)^2 - y^2 of each output y, (rows,).
    """

    cross: np.ndarray
    power: np.ndarray

    def of_rows(self, rows: np.ndarray) -> GapMoments:
        """Returns the moments of some rows.

        Args:
            rows: Their numbers.
        """
        return GapMoments(self.cross[rows], self.power[rows])

    def together(self, other: GapMoments, share: float) -> GapMoments:
        """Returns the moments of the patches of both.

        Args:
            other: Moments of other examples of the same layer.
            share: This one's share of the patches, in [0, 1].
        """
        rest = 1.0 - share
        cross = share * self.cross + rest * other.cross
        return GapMoments(cross, share * self.power + rest * other.power)


def measure_gap(
    kernel: Any,
    inputs: Sequence[Any],
    originals: Sequence[Any],
    gaps: Iterable[np.ndarray],
    weights: np.ndarray,
    rows: int,
) -> GapMoments:
    """Measures the moments of a gap between two models.

    Args:
        kernel: A kernel of a Dense layer or a convolution that is not depthwise.
        inputs: Inputs x' of its layer, one array per batch.
        originals: Inputs of the original layer.
        gaps: The gaps, one array per batch, of the output's shape.
        weights: Weights of the original layer, (rows, inputs).
        rows: As for :func:`measure`.

    Returns:
        The moments, of all batches together.
    """
    per_example = max(1, rows // max(1, examples_of(inputs)))
    cross, power, count = np.zeros((1, 1)), np.zeros(1), 0
    for batch, original, gap in zip(inputs, originals, gaps, strict=True):
        flat = gap.reshape(len(gap), -1, gap.shape[-1])
        target = flat[:, sampled(flat.shape[1], per_example)].reshape(-1, gap.shape[-1])
        x, y = (patches(kernel.layer, values, per_example)[0] for values in (batch, original))
        target, x, y = (a - a.mean(axis=0) for a in (target, x, y @ weights.T.astype(x.dtype)))
        cross = cross + (target.T @ x).astype(np.float64)
        power = power + (target * (target + 2 * y)).sum(axis=0, dtype=np.float64)
        count += len(x)
    return GapMoments(cross / count, power / count)


def patches(layer: Any, inputs: Any, per_example: int) -> np.ndarray:
    """Returns the patches that a layer multiplies its kernel with, (groups, n, inputs), float32.

    The number of groups is 1, or the number of channels for a depthwise convolution.

    Args:
        layer: A Dense or convolution layer.
        inputs: A batch of its inputs.
        per_example: Largest number of positions per example; the same positions each time.
    """
    import keras

    array = np.asarray(keras.ops.convert_to_numpy(inputs)).astype(np.float32, copy=False)
    if isinstance(layer, keras.layers.Dense):
        flat = array.reshape(len(array), -1, array.shape[-1])
        return flat[:, sampled(flat.shape[1], per_example)].reshape(1, -1, flat.shape[-1])
    if isinstance(layer, keras.layers.Conv1D):
        array = array[:, :, None]
    size, strides, dilation = (
        (*value, 1)[:2] for value in (layer.kernel_size, layer.strides, layer.dilation_rate)
    )
    windows = _windows(array, size, strides, dilation, layer.padding == "same")
    height, width = windows.shape[1:3]
    index = sampled(height * width, per_example)
    taken = windows[:, index // width, index % width]  # (examples, index, channels, *size)
    channels = taken.shape[2]
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        taken = taken.transpose(2, 0, 1, 3, 4)
        return np.ascontiguousarray(taken).reshape(channels, -1, math.prod(size))
    taken = taken.transpose(0, 1, 3, 4, 2)
    return np.ascontiguousarray(taken).reshape(1, -1, math.prod(size) * channels)


def _windows(
    array: np.ndarray,
    size: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
    same: bool,
) -> np.ndarray:
    """A view of all windows, (examples, height, width, channels, *size)."""
    spans = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    if same:
        pads = [(0, 0)]
        for length, span, stride in zip(array.shape[1:3], spans, strides, strict=True):
            total = max((math.ceil(length / stride) - 1) * stride + span - length, 0)
            pads.append((total // 2, total - total // 2))
        array = np.pad(array, [*pads, (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(array, spans, axis=(1, 2))
    return windows[:, :: strides[0], :: strides[1], :, :: dilation[0], :: dilation[1]]


def sampled(count: int, size: int) -> np.ndarray:
    """Returns `size` distinct indices below `count`, random but the same in each call.

    Args:
        count: Number of indices to draw from.
        size: Number of indices to draw, at most `count`.

    Returns:
        The indices, (size,).
    """
    if size >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).permutation(count)[:size])


def sample_of_rows(shape: tuple[int, ...]) -> np.ndarray:
    """Returns the numbers of some rows of a layer, by which its error is estimated.

    As many as keep the time of a wide layer's fits short, and 16 at least; the same in each call.

    Args:
        shape: (rows, inputs) of its weights.
    """
    rows, inputs = shape
    return np.random.default_rng(0).permutation(rows)[: max(16, int(2e7 / inputs**2))]


def unsupported_reason(kernel: Any) -> str | None:
    """Returns why a kernel can't be fitted by least squares, None if it can.

    Args:
        kernel: A kernel of a layer.
    """
    from keras import layers

    layer = kernel.layer
    kind = type(layer)
    if kind not in (layers.Dense, layers.Conv1D, layers.Conv2D, layers.DepthwiseConv2D):
        return f"layers of type {kind.__name__} can't be fitted yet"
    if kind is not layers.Dense:
        if getattr(layer, "groups", 1) != 1:
            return f"convolutions of {layer.groups} groups can't be fitted yet"
        if layer.data_format != "channels_last":
            return f"its data format is {layer.data_format}"
        if layer.padding not in ("same", "valid"):
            return f"its padding is {layer.padding!r}"
    return None


def to_rows(layer: Any, array: Any) -> np.ndarray:
    """Returns an array of the shape of the layer's kernel as (rows, inputs), float64.

    Args:
        layer: The layer of the kernel.
        array: An array of the kernel's shape.
    """
    array = np.asarray(array, np.float64)
    return array.reshape(-1, _rows(layer, array.shape)).T


def to_kernel(layer: Any, rows: np.ndarray) -> np.ndarray:
    """Returns an array of (rows, inputs) in the shape of the layer's kernel, float32.

    Args:
        layer: The layer of the kernel.
        rows: An array of (rows, inputs).
    """
    return rows.T.reshape(tuple(layer.kernel.shape)).astype(np.float32)


def quadratic(weights: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Returns w M w^T of each row w, (rows,).

    Args:
        weights: (rows, inputs).
        matrix: (inputs, inputs), or (rows, inputs, inputs) with one matrix per row.
    """
    if matrix.ndim == 2:
        return ((weights @ matrix) * weights).sum(axis=1)
    return np.einsum("ri,rij,rj->r", weights, matrix, weights)


def _rows(layer: Any, shape: Sequence[int]) -> int:
    import keras

    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    return shape[-1] * shape[-2] if depthwise else shape[-1]


class _Sums:
    """Sums of moments over batches, relative to the first batch's means for precision.

    Args:
        pruned: Patches of the first batch in the pruned model, (groups, n, inputs).
        original: Patches of the same batch in the original model.
    """

    def __init__(self, pruned: np.ndarray, original: np.ndarray) -> None:
        self._shifts = pruned.mean(axis=1, keepdims=True), original.mean(axis=1, keepdims=True)
        self.count = 0
        groups, _, inputs = pruned.shape
        self._squares = np.zeros((3, groups, inputs, inputs))
        self._means = np.zeros((2, groups, inputs))

    def add(self, pruned: np.ndarray, original: np.ndarray) -> None:
        """Adds a batch."""
        a = pruned - self._shifts[0]
        turned = a.transpose(0, 2, 1)
        square = turned @ a
        if pruned is original:
            b = a
            self._squares += square
        else:
            b = original - self._shifts[1]
            self._squares += np.stack([square, turned @ b, b.transpose(0, 2, 1) @ b])
        self._means += np.stack([x.sum(axis=1, dtype=np.float64) for x in (a, b)])
        self.count += a.shape[1]

    def moments(self, central: bool, repeats: int) -> InputMoments:
        """Returns the moments.

        Args:
            central: Whether the means are subtracted.
            repeats: How often each group is repeated, the depth multiplier of a depthwise
                convolution; 0: there is one group, whose axis is dropped.
        """
        means = self._means / self.count
        squares = self._squares / self.count
        for index, (one, other) in enumerate(((0, 0), (0, 1), (1, 1))):
            squares[index] -= means[one][:, :, None] * means[other][:, None, :]
        means += np.stack([shift[:, 0] for shift in self._shifts])
        if not central:
            for index, (one, other) in enumerate(((0, 0), (0, 1), (1, 1))):
                squares[index] += means[one][:, :, None] * means[other][:, None, :]
        single = repeats == 0
        parts = [x[0] if single else np.repeat(x, repeats, axis=0) for x in (*squares, *means)]
        return InputMoments(parts[0], parts[1], parts[2], parts[3], parts[4], central, self.count)
