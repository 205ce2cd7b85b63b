"""A layer whose kernel is rounded as the `.tflite` file holds it.

Symmetric, per output channel (per tensor for Dense and transposed convolutions, which the
converter wants; one scale for all channels where they share their values). A convolution's
kernel is rounded before a BatchNormalization is folded into it: a factor a channel changes the
scale, not the rounding, so with one scale a channel this is exact.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfnas.quantization.layer_roles import ONE_SCALE

PACKAGE = "tfnas"


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedKernel(keras.layers.Wrapper):
    """Calls a layer with its kernel rounded to 2^bits - 1 steps around 0.

    Args:
        layer: A Dense or convolution layer.
        bits: 2 to 8.
        active: Whether it rounds.
        least: The least that the ends of the grid are. The step of a bias is that of the input
            times that of the kernel: beside a kernel that has died out, and fine steps of the
            input, it would not fit into its integer.
        one_scale: Whether all channels have the same scale: of a kernel whose channels share
            their values, the file's integers are then as few as those, and compress as well.
    """

    def __init__(
        self,
        layer: Any,
        bits: int = 8,
        active: bool = True,
        least: float = 0.0,
        one_scale: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(layer, **kwargs)
        self.bits, self.active, self.least, self.one_scale = bits, active, least, one_scale

    def build(self, input_shape: Any = None) -> None:
        """Builds the layer."""
        if not self.layer.built:
            self.layer.build(input_shape)
        self.built = True

    def call(self, x: Any, use: int = 0) -> Any:
        """Calls the layer with the rounded kernel.

        Args:
            x: The input.
            use: Number of the call, where a model calls the layer several times.
        """
        layer = self.layer
        if not self.active:
            return layer(x)
        value = layer.kernel.value
        if isinstance(layer, keras.layers.Conv1D | keras.layers.DepthwiseConv1D):
            return self._call_1d(x, self.rounded(tf.expand_dims(value, 0), use))
        rounded = self.rounded(value, use)
        transposed = isinstance(layer, keras.layers.Conv2DTranspose)
        if isinstance(layer, keras.layers.Dense) and len(x.shape) > 2:
            return self._call_flat(x, rounded)
        if max(getattr(layer, "dilation_rate", (1,))) > 1 and not transposed:
            return self._call_dilated(x, rounded)

        def values(variables: Any) -> list[Any]:
            return [rounded if v is layer.kernel else v for v in variables]

        outputs, _ = layer.stateless_call(
            values(layer.trainable_variables), values(layer.non_trainable_variables), x
        )
        return outputs

    def _call_flat(self, x: Any, kernel: Any) -> Any:
        """A dense layer of more than 2 dimensions: the converter fuses the bias of 2 only."""
        found = self._biased(tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), tf.cast(kernel, x.dtype)))
        sizes = [-1 if size is None else size for size in x.shape[1:-1]]
        lead = [-1] if -1 not in sizes else [tf.shape(x)[0]]
        return tf.reshape(found, [*lead, *sizes, kernel.shape[-1]])

    def _call_dilated(self, x: Any, kernel: Any) -> Any:
        """A dilated convolution as one operation: Keras' own puts others behind it."""
        layer, kernel = self.layer, tf.cast(kernel, x.dtype)
        options = {"padding": layer.padding.upper(), "dilations": list(layer.dilation_rate)}
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            return self._biased(
                tf.nn.depthwise_conv2d(x, kernel, [1, *layer.strides, 1], **options)
            )
        return self._biased(tf.nn.conv2d(x, kernel, layer.strides, **options))

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
        else:
            found = tf.nn.conv2d(image, kernel, strides, padding, dilations=[1, dilation])
        found = tf.squeeze(found, 1)
        return found if layer.bias is None else found + tf.cast(layer.bias.value, x.dtype)

    def _biased(self, found: Any) -> Any:
        bias = self.layer.bias
        return found if bias is None else tf.nn.bias_add(found, tf.cast(bias.value, found.dtype))

    def rounded(self, kernel: Any, use: int = 0) -> Any:
        """Returns the kernel on its grid.

        Of a kernel that several operations take, the converter forgets the grid, and chooses
        one of its own with 8 bits and a scale a channel. So each use has a kernel of its own
        for it: the ends are apart by less than rounding can tell, and the file holds the
        integers once.
        """
        kernel = tf.convert_to_tensor(kernel)
        value = tf.cast(kernel, tf.float32)
        options = {"num_bits": self.bits, "narrow_range": True}
        wider = 1.0 + use * _APART

        def end(most: Any) -> Any:
            return tf.maximum(some(most), self.least) * wider

        if type(self.layer).__name__ in ONE_SCALE:
            most = end(tf.reduce_max(tf.abs(tf.stop_gradient(value))))
            found = tf.quantization.fake_quant_with_min_max_vars(value, -most, most, **options)
            return tf.cast(found, kernel.dtype)
        # A depthwise kernel's channels are its last two axes.
        depthwise = isinstance(
            self.layer, keras.layers.DepthwiseConv1D | keras.layers.DepthwiseConv2D
        )
        flat = tf.reshape(value, [*value.shape[:-2], -1]) if depthwise else value
        axes = range(len(flat.shape) - 1)
        largest = tf.reduce_max(tf.abs(tf.stop_gradient(flat)), axes)
        if self.one_scale:
            largest = tf.ones_like(largest) * tf.reduce_max(largest)
        dead = _DEAD_BESIDE_16 if self.least else _DEAD
        most = end(tf.maximum(largest, dead * tf.reduce_max(largest)))
        found = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            flat, -most, most, **options
        )
        return tf.cast(tf.reshape(found, value.shape), kernel.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The layer's."""
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns what makes the layer again."""
        names = ("bits", "active", "least", "one_scale")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


# Of a channel that has died out (training leaves 1e-7 of the others) the step would be so fine
# that what the channel then gives, its bias, would not fit into 32 bits beside it.
# Steps of 16-bit inputs are 256 times finer; a living channel (1/200 of the largest, at least)
# still has 40 steps.
_DEAD, _DEAD_BESIDE_16 = 2.0**-13, 2.0**-6
_APART = 2.0**-23  # one step of a float32


def some(most: Any) -> Any:
    """A channel of zeros has no scale of its own: any will do."""
    return tf.where(most > 0.0, most, tf.ones_like(most))
