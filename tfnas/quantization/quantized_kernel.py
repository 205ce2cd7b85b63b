"""Fake quantization of kernels, as the `.tflite` file will hold them.

The grid is symmetric with one scale per output channel. The converter requires one scale for the
entire kernel of transposed convolutions, and of Dense layers unless they are computed as
convolutions of size 1; kernels whose channels share their values have one scale too. A
convolution's kernel is rounded before a BatchNormalization is folded into it. Folding multiplies
each channel by a factor, which changes its scale and not its integers, so with one scale per
channel this is exact.
"""

from __future__ import annotations

import functools
from typing import Any

import keras
import tensorflow as tf

from tfnas.graph.macs import layer_macs
from tfnas.graph.registered_layers import register_layer, weight_of
from tfnas.quantization.einsum_axes import count, dense_axes, dense_product
from tfnas.quantization.layer_roles import ONE_SCALE

PACKAGE = "tfnas"


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedKernel(keras.layers.Wrapper):
    """Calls a layer with its kernel rounded to a symmetric grid of 2^bits - 1 steps.

    Args:
        layer: A Dense, EinsumDense or convolution layer.
        bits: 2 to 8.
        active: Whether it rounds.
        least: Minimum of a channel's largest absolute weight, for its scale. The scale of the bias
            is that of the input times that of the kernel: with a kernel near 0 and 16-bit
            inputs the bias would overflow its 32 bits.
        one_scale: Whether all channels have the same scale. Where the channels share their
            values (clustering), the file then holds no more distinct integers than these, and
            compresses as well.
        as_convolution: Whether a Dense or EinsumDense layer is computed as a convolution of size
            1, which has one scale per output channel in the file, not one for the kernel.
        fixed: Whether a weight `ends` holds the end of each channel's grid, (channels,). Where it
            is 0 the grid follows the kernel, as without it. It is for kernels that hold rounded
            values already (:mod:`tfnas.quantization.round_model`).
        factor: A number that the kernel and the bias of an EinsumDense are multiplied by.
    """

    def __init__(
        self,
        layer: Any,
        bits: int = 8,
        active: bool = True,
        least: float = 0.0,
        one_scale: bool = False,
        as_convolution: bool = False,
        fixed: bool = False,
        factor: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(layer, **kwargs)
        self.factor = factor
        self.bits, self.active, self.least, self.one_scale = bits, active, least, one_scale
        self.as_convolution, self.fixed = as_convolution, fixed
        self.ends: Any = None
        self.supports_masking = layer.supports_masking

    def build(self, input_shape: Any = None) -> None:
        """Builds the layer."""
        if not self.layer.built:
            self.layer.build(input_shape)
        if self.fixed:
            self.ends = self.add_weight(
                name="ends",
                shape=(_channel_count(self.layer, self.as_convolution),),
                initializer="zeros",
                trainable=False,
                dtype="float32",
                autocast=False,
            )
        self.built = True

    def call(self, x: Any, use: int = 0) -> Any:
        """Calls the layer with the rounded kernel.

        Args:
            x: The input.
            use: Index of the call, where a model calls the layer several times.
        """
        layer = self.layer
        if not self.active:
            return layer(x) if self.factor == 1.0 else layer(x) * self.factor
        value = layer.kernel.value
        if isinstance(layer, keras.layers.EinsumDense):
            return self._call_einsum(x, value * self.factor, use)
        if isinstance(layer, keras.layers.Conv1D | keras.layers.DepthwiseConv1D):
            return self._call_1d(x, self.rounded(tf.expand_dims(value, 0), use))
        if isinstance(layer, keras.layers.Dense) and (self.as_convolution or len(x.shape) > 2):
            return self._call_dense(x, value, use)
        rounded = self.rounded(value, use)
        if isinstance(layer, keras.layers.Conv2D) and max(layer.dilation_rate) > 1:
            return self._call_dilated(x, rounded)
        return self._called_with({id(layer.kernel): rounded}, x)

    def _called_with(self, values: dict[int, Any], *args: Any, **kwargs: Any) -> Any:
        """Calls the layer with other values of some variables, by their ids."""
        layer = self.layer
        trainable, fixed = (
            [values.get(id(variable), variable) for variable in variables]
            for variables in (layer.trainable_variables, layer.non_trainable_variables)
        )
        outputs, _ = layer.stateless_call(trainable, fixed, *args, **kwargs)
        return outputs

    def _call_dense(self, x: Any, kernel: Any, use: int) -> Any:
        """A dense layer of any dimensions: of more than 2 the converter fuses no bias by itself."""
        bias = self.layer.bias
        if self.as_convolution and len(x.shape) <= 4:
            return self._product(x, kernel, bias, use)
        rows = tf.reshape(x, [-1, x.shape[-1]])
        return placed_as(x, self._product(rows, kernel, bias, use))

    def _call_einsum(self, x: Any, kernel: Any, use: int) -> Any:
        axes, bias = dense_axes(self.layer), self.layer.bias
        assert axes is not None  # by the role of the layer
        bias = None if bias is None else bias.value * self.factor
        return dense_product(axes, x, kernel, bias, functools.partial(self._product, use=use))

    def _product(self, x: Any, kernel: Any, bias: Any, use: int) -> Any:
        """Rows times a matrix, rounded, plus a bias; a convolution also of 3 and 4 dimensions."""
        if not self.as_convolution:
            return _biased(tf.matmul(x, tf.cast(self.rounded(kernel, use), x.dtype)), bias)
        kernel = tf.cast(self.rounded(kernel[None, None], use), x.dtype)
        rank = len(x.shape)
        if rank == 2:
            x = tf.reshape(x, [-1, 1, 1, x.shape[-1]])
        elif rank == 3:
            x = tf.expand_dims(x, 1)
        found = _biased(tf.nn.conv2d(x, kernel, 1, "VALID"), bias)
        if rank == 2:
            return tf.reshape(found, [-1, found.shape[-1]])
        return tf.squeeze(found, 1) if rank == 3 else found

    @property
    def scale_per_kernel(self) -> bool:
        """Whether the file has one scale for the entire kernel."""
        return type(self.layer).__name__ in ONE_SCALE and not self.as_convolution

    def _call_dilated(self, x: Any, kernel: Any) -> Any:
        """A dilated convolution as one operation: Keras' own puts others behind it."""
        layer, kernel = self.layer, tf.cast(kernel, x.dtype)
        padding, rates = layer.padding.upper(), list(layer.dilation_rate)
        found = dilated_conv2d(x, kernel, layer.strides, padding, rates)
        return _biased(found, layer.bias)

    def _call_1d(self, x: Any, kernel: Any) -> Any:
        """A 1-D convolution as a 2-D one of height 1, which is what the file holds.

        Rounded in one dimension, the converter would lose the kernel's axis of channels.
        """
        layer = self.layer
        size, stride, dilation = (
            int(value[0]) for value in (layer.kernel_size, layer.strides, layer.dilation_rate)
        )
        if layer.padding == "causal":
            x = tf.pad(x, [[0, 0], [dilation * (size - 1), 0], [0, 0]])
        padding = "SAME" if layer.padding == "same" else "VALID"
        kernel = tf.cast(kernel, x.dtype)
        image, strides = tf.expand_dims(x, 1), [1, stride, stride, 1]
        if isinstance(layer, keras.layers.DepthwiseConv1D):
            found = tf.nn.depthwise_conv2d(
                image, kernel, strides, padding, dilations=[dilation, dilation]
            )
        elif dilation > 1:
            found = dilated_conv2d(image, kernel, strides, padding, [1, dilation])
        else:
            found = tf.nn.conv2d(image, kernel, strides, padding)
        found = tf.squeeze(found, 1)
        return found if layer.bias is None else found + tf.cast(layer.bias.value, x.dtype)

    def rounded(self, kernel: Any, use: int = 0) -> Any:
        """Returns the kernel rounded to its grid.

        If several operations share a kernel, the converter drops its grid and chooses one with
        8 bits and a scale per channel. So the ranges of the uses differ by one float32 step:
        each use has a kernel of its own for the converter, which rounds to the same integers,
        and the file holds these once.
        """
        return self._on_grid(kernel, use, self.scale_per_kernel, _is_depthwise(self.layer))

    def _on_grid(self, kernel: Any, use: int, whole: bool, depthwise: bool = False) -> Any:
        """Rounds a kernel; `whole`: to one scale, else to one for each channel, the last axis."""
        kernel = tf.convert_to_tensor(kernel)
        value = tf.cast(kernel, tf.float32)
        options = {"num_bits": self.bits, "narrow_range": True}
        widening = 1.0 + use * FLOAT32_STEP

        def range_end(largest: Any) -> Any:
            return tf.maximum(zeros_to_ones(largest), self.least) * widening

        if whole:
            largest = tf.reduce_max(tf.abs(tf.stop_gradient(value)))
            end = range_end(largest if self.ends is None else self._fixed_or(largest, 0))
            result = tf.quantization.fake_quant_with_min_max_vars(value, -end, end, **options)
            return tf.cast(result, kernel.dtype)
        flat = tf.reshape(value, [*value.shape[:-2], -1]) if depthwise else value
        axes = range(len(flat.shape) - 1)
        largest = tf.reduce_max(tf.abs(tf.stop_gradient(flat)), axes)
        if self.one_scale:
            largest = tf.ones_like(largest) * tf.reduce_max(largest)
        smallest = _MIN_RATIO_16 if self.least else _MIN_RATIO
        if self.ends is not None:
            largest = self._fixed_or(largest, ...)
        end = range_end(tf.maximum(largest, smallest * tf.reduce_max(largest)))
        result = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            flat, -end, end, **options
        )
        return tf.cast(tf.reshape(result, value.shape), kernel.dtype)

    def _fixed_or(self, largest: Any, channels: Any) -> Any:
        """The stored ends, and the kernel's own where none is stored."""
        ends = self.ends.value[channels]
        return tf.where(ends > 0.0, ends, largest)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """Returns the mask that the wrapped layer passes on."""
        return self.layer.compute_mask(inputs, previous_mask)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the wrapped layer's output shape."""
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the layer's configuration, for saving."""
        names = ("bits", "active", "least", "one_scale", "as_convolution", "fixed", "factor")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def dilated_conv2d(x: Any, kernel: Any, strides: Any, padding: str, dilations: Any) -> Any:
    """A dilated convolution as one operation, which can be trained on any processor.

    Without oneDNN, which TensorFlow uses on some processors alone, this operation has no gradient
    on CPUs. So the gradient is that of the form that Keras computes, of several operations.
    """
    options = {"strides": strides, "padding": padding, "dilations": dilations}

    @tf.custom_gradient
    def convolved(x: Any, kernel: Any) -> Any:
        def gradients(upstream: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch([x, kernel])
                again = tf.nn.convolution(x, kernel, **options)
            return tape.gradient(again, [x, kernel], upstream)

        return tf.nn.conv2d(x, kernel, **options), gradients

    return convolved(x, kernel)


def placed_as(x: Any, rows: Any) -> Any:
    """Rows for each place of a tensor, (places, features), in the tensor's shape before them."""
    sizes = [-1 if size is None else size for size in x.shape[1:-1]]
    lead = [-1] if -1 not in sizes else [tf.shape(x)[0]]
    return tf.reshape(rows, [*lead, *sizes, rows.shape[-1]])


def _biased(found: Any, bias: Any) -> Any:
    return found if bias is None else tf.nn.bias_add(found, tf.cast(bias, found.dtype))


def _is_depthwise(layer: Any) -> bool:
    """Whether the channels of a layer's kernel are its last two axes."""
    return isinstance(layer, keras.layers.DepthwiseConv1D | keras.layers.DepthwiseConv2D)


def _channel_count(layer: Any, as_convolution: bool) -> int:
    """The number of output channels of a layer's kernel, as its grid counts them."""
    shape = tuple(layer.kernel.shape)
    axes = dense_axes(layer) if isinstance(layer, keras.layers.EinsumDense) else None
    if axes is not None and as_convolution:
        return int(count(dict(zip(axes.second, shape, strict=True)), axes.own(axes.second)))
    return int(shape[-1] * shape[-2]) if _is_depthwise(layer) else int(shape[-1])


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedWeights(QuantizedKernel):
    """Calls a registered layer with the kernels rounded that its `integer_form` names.

    Args:
        layer: A layer whose class is registered with :func:`tfnas.register_layer`.
        axes: Maps the attribute of each kernel to its last axis, -1, for a scale for each index;
            None: it has one scale.
        **options: As of :class:`QuantizedKernel`.
    """

    def __init__(self, layer: Any, axes: dict[str, int | None], **options: Any) -> None:
        super().__init__(layer, **options)
        self.axes = axes

    def build(self, input_shape: Any = None) -> None:
        """Marks the layer as built: the one inside is built before, from its own configuration."""
        self.built = True

    def compute_output_spec(self, *args: Any, use: int = 0, **kwargs: Any) -> Any:
        """Returns the output of the layer inside, which need not tell its shape."""
        return self.layer.compute_output_spec(*args, **kwargs)

    def get_build_config(self) -> dict[str, Any]:
        """Returns what the layer inside is built from, for saving."""
        return {"layer": self.layer.get_build_config()}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Builds the layer inside."""
        if config.get("layer") and not self.layer.built:
            self.layer.build_from_config(config["layer"])
        self.built = True

    def call(self, *args: Any, use: int = 0, **kwargs: Any) -> Any:
        """Calls the layer with the rounded kernels.

        Args:
            *args: The layer's arguments.
            use: Index of the call, where a model calls the layer several times.
            **kwargs: The layer's arguments.
        """
        layer = self.layer
        if not self.active:
            return layer(*args, **kwargs)
        rounded = {}
        for name, axis in self.axes.items():
            weight = weight_of(layer, name, "integer_form")
            rounded[id(weight)] = self._on_grid(weight.value, use, axis is None)
        return self._called_with(rounded, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Returns the layer's configuration, for saving."""
        return {**super().get_config(), "axes": dict(self.axes)}


register_layer(QuantizedKernel, macs=lambda own, x, y: layer_macs(own.layer, x, y))

# The smallest range of a channel relative to the kernel's largest. Weight decay can leave a channel
# 1e-7 of the others: its scale would be so small that its bias overflows 32 bits. Steps of
# 16-bit inputs are 256 times finer; there a channel with 1/200 of the largest weights still has 40
# steps.
_MIN_RATIO, _MIN_RATIO_16 = 2.0**-13, 2.0**-6
FLOAT32_STEP = 2.0**-23  # relative


def zeros_to_ones(x: Any) -> Any:
    """Replaces zeros by ones: a channel of zeros may have any scale but 0."""
    return tf.where(x > 0.0, x, tf.ones_like(x))
