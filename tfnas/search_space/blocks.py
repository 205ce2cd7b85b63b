"""Builds Keras models of architectures.

The padding suits XNNPACK's sparse kernels: a strided convolution is padded symmetrically by a
ZeroPadding2D layer and runs with padding "valid" ("same" would pad one side more), so that a model
with RGB input, a stem of stride 2 and kernels of 3 and 5 can run sparse.

The first layer scales raw pixels to [-1, 1], so that the deployed file takes the images of a
camera. Other values go in as they are: the BatchNormalization after the first convolution makes up
for their scale and mean.

A series is an image of height 1 with kernels of height 1, not a row of Conv1D layers: the converter
writes the same convolutions, without reshapes around each of them (decision 76).
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from tfnas.search_space.architecture import Architecture, scale_filters
from tfnas.search_space.block_spec import FUSED_INVERTED_RESIDUAL, IDENTITY, BlockSpec


def build_model(arch: Architecture, batchnorm_momentum: float = 0.9) -> keras.Model:
    """Builds the untrained functional model of an architecture.

    Example:
        >>> import tfnas
        >>> model = build_model(tfnas.mobilenet_v2((224, 224, 3), 1000))
        >>> model.count_params()
        3538984

    Args:
        arch: The architecture.
        batchnorm_momentum: Momentum of all BatchNormalization layers.

    Returns:
        A model with inputs (batch, height, width, channels), or (batch, steps, channels) of series,
        and outputs (batch, num_classes), class probabilities. Inputs are pixels from 0 to 255 if
        the architecture has `include_rescaling`.
    """
    builder = _Builder(batchnorm_momentum, flat=arch.is_series)
    width = arch.width_multiplier
    inputs = layers.Input(arch.input_shape, name="series" if arch.is_series else "image")
    x = inputs
    if arch.is_series:
        # Reshape would compute its shape in the file, from the batch: three more operators.
        x = keras.ops.expand_dims(x, 1)
    if arch.working_resolution != arch.image_shape[:2]:
        x = layers.Resizing(*arch.working_resolution, name="resize")(x)
    if arch.include_rescaling:
        x = layers.Rescaling(1 / 127.5, offset=-1.0, name="rescale")(x)
    x = builder.convolution(x, "stem", scale_filters(arch.stem_filters, width), 3, arch.stem_stride)
    for index, stage in enumerate(arch.stages, 1):
        x = builder.stage(x, f"stage{index}", stage, width)
    x = builder.convolution(x, "head", scale_filters(arch.head_filters, max(1.0, width)), 1)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    if arch.dropout:
        x = layers.Dropout(arch.dropout, name="dropout")(x)
    x = layers.Dense(arch.num_classes, name="logits")(x)
    outputs = layers.Activation("softmax", name="probabilities", dtype="float32")(x)
    return keras.Model(inputs, outputs, name=f"tfnas_{arch.key}")


class _Builder:
    """Adds named layers with common settings; `flat`: with kernels of height 1."""

    def __init__(self, batchnorm_momentum: float, flat: bool):
        self.momentum, self.flat = batchnorm_momentum, flat

    def stage(self, x: Any, name: str, stage: BlockSpec, width: float) -> Any:
        if stage.kind == IDENTITY:
            return x
        filters = scale_filters(stage.filters, width)
        for index in range(stage.repeats):
            stride = stage.stride if index == 0 else 1
            x = self.block(x, f"{name}_block{index + 1}", stage, filters, stride)
        return x

    def block(self, x: Any, name: str, stage: BlockSpec, filters: int, stride: int) -> Any:
        inputs, channels = x, x.shape[-1]
        hidden = channels * stage.expansion
        if stage.kind == FUSED_INVERTED_RESIDUAL:
            x = self.convolution(x, f"{name}_fused", hidden, stage.kernel, stride)
        else:
            if stage.expansion > 1:
                x = self.convolution(x, f"{name}_expand", hidden, 1)
            x = self.convolution(x, f"{name}_depthwise", None, stage.kernel, stride)
        x = self.convolution(x, f"{name}_project", filters, 1, activation=False)
        if stride == 1 and channels == filters:
            x = layers.Add(name=f"{name}_add")([inputs, x])
        return x

    def convolution(
        self,
        x: Any,
        name: str,
        filters: int | None,
        kernel: int,
        stride: int = 1,
        activation: bool = True,
    ) -> Any:
        """Convolution (depthwise if `filters` is None), BatchNormalization, ReLU6."""
        padding, height = "same", 1 if self.flat else kernel
        if stride > 1:
            x = layers.ZeroPadding2D((height // 2, kernel // 2), name=f"{name}_pad")(x)
            padding = "valid"
        # Equal strides, as a depthwise one needs them; of a height of 1 nothing is left out.
        common = {"strides": stride, "padding": padding, "use_bias": False, "name": name}
        if filters is None:
            x = layers.DepthwiseConv2D((height, kernel), **common)(x)
        else:
            x = layers.Conv2D(filters, (height, kernel), **common)(x)
        x = layers.BatchNormalization(momentum=self.momentum, name=f"{name}_bn")(x)
        return layers.ReLU(6.0, name=f"{name}_relu")(x) if activation else x
