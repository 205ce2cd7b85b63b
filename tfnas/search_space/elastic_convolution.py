"""A convolution with BatchNormalization and ReLU6 of which a member of a space uses a part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfnas.search_space.elastic import Statistics
from tfnas.search_space.graph_branch import GraphBranch

_EPSILON = 1e-3  # that of keras.layers.BatchNormalization


class ElasticConvolution:
    """The weights of the largest convolution, and the computation of each smaller one.

    Args:
        name: Name of the weights.
        inputs: Largest number of input channels.
        filters: Largest number of filters; None: the convolution is depthwise.
        kernels: Heights and widths of the kernel to choose from.
        stride: The stride, 1 or 2.
        activation: Whether ReLU6 follows.
        flat: Whether kernels have a height of 1, as those of series.
    """

    def __init__(
        self,
        name: str,
        inputs: int,
        filters: int | None,
        kernels: Sequence[int] = (1,),
        *,
        stride: int = 1,
        activation: bool = True,
        flat: bool = False,
    ) -> None:
        self.name, self.inputs, self.depthwise = name, inputs, filters is None
        self.filters = inputs if filters is None else filters
        self.kernels, self.stride, self.activation = tuple(kernels), stride, activation
        self.flat = flat

    def create(self, layer: keras.layers.Layer, seed: int) -> None:
        """Creates the weights.

        Args:
            layer: The Keras layer that they belong to.
            seed: Seed of the kernel.
        """
        size = max(self.kernels)
        height = 1 if self.flat else size
        shape = (height, size, self.inputs, 1 if self.depthwise else self.filters)
        initializer = keras.initializers.GlorotUniform(seed)

        def add(part: str, initial: Any, of: tuple[int, ...], trainable: bool) -> Any:
            name = f"{self.name}_{part}"
            return layer.add_weight(name=name, shape=of, initializer=initial, trainable=trainable)

        channels = (self.filters,)
        self.kernel = add("kernel", initializer, shape, True)
        self.gamma = add("gamma", "ones", channels, True)
        self.beta = add("beta", "zeros", channels, True)
        # Sums over the batches that were measured.
        self.means = add("means", "zeros", channels, False)
        self.squares = add("squares", "zeros", channels, False)  # of the means
        self.variances = add("variances", "zeros", channels, False)
        self.batches = add("batches", "zeros", (), False)

    def forget_statistics(self) -> None:
        """Forgets the statistics that were measured."""
        for variable in (self.means, self.squares, self.variances, self.batches):
            variable.assign(tf.zeros(variable.shape))

    def __call__(
        self, x: Any, sizes: tuple[Any, Any, Any], statistics: Statistics, branch: GraphBranch
    ) -> Any:
        """Returns the output of a member's convolution.

        Args:
            x: (batch, height, width, channels), inside of the branch.
            sizes: Channels of `x`, filters (the same if the convolution is depthwise), height and
                width of the kernel; scalars from outside of the branch.
            statistics: Where the normalization takes its statistics from.
            branch: The branch of the graph.
        """
        kernel = sizes[2] if len(self.kernels) > 1 else tf.constant(self.kernels[0])
        weights = branch.enter(self._weights(sizes[0], sizes[1], kernel))
        strides, padding = [1, self.stride, self.stride, 1], "SAME"
        if self.stride > 1:
            side = [kernel // 2, kernel // 2]
            above = [0, 0] if self.flat else side
            x, padding = tf.pad(x, [[0, 0], above, side, [0, 0]]), "VALID"
        if self.depthwise:
            x = tf.raw_ops.DepthwiseConv2dNative(
                input=x, filter=weights, strides=strides, padding=padding
            )
        else:
            x = tf.nn.conv2d(x, weights, strides, padding)
        x = self._normalized(x, sizes[1], statistics, branch)
        return tf.nn.relu6(x) if self.activation else x

    def _weights(self, channels: Any, filters: Any, kernel: Any) -> Any:
        """The member's part of the kernel."""
        weights = self.kernel.value
        spatial = slice(None)
        if len(self.kernels) > 1:
            start = (max(self.kernels) - kernel) // 2
            spatial = slice(start, start + kernel)
        rows = slice(None) if self.flat else spatial
        if self.depthwise:
            return weights[rows, spatial, :channels]
        return weights[rows, spatial, :channels, :filters]

    def _normalized(self, x: Any, filters: Any, statistics: Statistics, branch: GraphBranch) -> Any:
        scale = branch.enter(self.gamma.value[:filters])
        offset = branch.enter(self.beta.value[:filters])
        if statistics is Statistics.BATCH:
            return normalized_by_batch(x, scale, offset)
        if statistics is Statistics.MEASURE:
            mean, variance = tf.nn.moments(x, (0, 1, 2))
            self._measure(mean, variance, filters, branch)
        else:
            mean, variance = (branch.enter(part[:filters]) for part in self._measured())
        factor = scale * tf.math.rsqrt(variance + _EPSILON)
        return x * factor + (offset - mean * factor)

    def _measure(self, mean: Any, variance: Any, filters: Any, branch: GraphBranch) -> None:
        """Adds the statistics of a batch; outside of the branch, where variables may change."""
        rest = [[0, self.filters - filters]]
        for sums, value in (
            (self.means, mean),
            (self.squares, tf.square(mean)),
            (self.variances, variance),
        ):
            padded = tf.ensure_shape(tf.pad(value, rest), [self.filters])
            sums.assign_add(branch.leave(padded, tf.zeros([self.filters])))
        self.batches.assign_add(branch.leave(branch.enter(1.0), 0.0))

    def _measured(self) -> tuple[Any, Any]:
        """Mean and variance over all that was measured, (filters,) each."""
        count = tf.maximum(self.batches.value, 1.0)
        mean = self.means.value / count
        between = tf.maximum(self.squares.value / count - tf.square(mean), 0.0)
        return mean, self.variances.value / count + between

    def cut(self, inputs: int, filters: int | None, kernel: int) -> list[np.ndarray]:
        """Returns a member's kernel, gamma, beta, mean and variance.

        Args:
            inputs: Number of input channels.
            filters: Number of filters; None: the convolution is depthwise.
            kernel: Height and width of the kernel.
        """
        start = (max(self.kernels) - kernel) // 2
        part = slice(start, start + kernel)
        rows = slice(None) if self.flat else part
        channels = inputs if filters is None else filters
        weights = np.array(self.kernel)[rows, part, :inputs]
        weights = weights if self.depthwise else weights[..., :filters]
        normalization = [self.gamma, self.beta, *self._measured()]
        return [weights, *(np.array(each)[:channels] for each in normalization)]


@tf.custom_gradient
def normalized_by_batch(x: Any, scale: Any, offset: Any) -> tuple[Any, Any]:
    """Returns a batch with its own mean and variance removed, scaled and shifted.

    TensorFlow's fused operation is not used: with oneDNN, whose sizes must not change from step to
    step, it corrupts the memory of the process (2.21), and it is four times slower.

    Args:
        x: (batch, height, width, channels).
        scale: (channels,).
        offset: (channels,).

    Returns:
        The batch, and the function of its gradient.
    """
    mean, variance = tf.nn.moments(x, (0, 1, 2))
    inverse = tf.math.rsqrt(variance + _EPSILON)
    standard = (x - mean) * inverse

    def gradient(upstream: Any) -> tuple[Any, Any, Any]:
        count = tf.cast(tf.size(x) // tf.size(scale), tf.float32)
        of_offset = tf.reduce_sum(upstream, (0, 1, 2))
        of_scale = tf.reduce_sum(upstream * standard, (0, 1, 2))
        of_x = scale * inverse * (upstream - (of_offset + standard * of_scale) / count)
        return of_x, of_scale, of_offset

    return standard * scale + offset, gradient
