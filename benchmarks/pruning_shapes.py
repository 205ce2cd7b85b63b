"""The 52 shapes of models in the tests of Torch-Pruning, small and in Keras.

`SHAPES` maps a name to a function that returns a model. 25 are the families of its
test_torchvision_models.py, with those that it names as its own failures (ShuffleNet, Swin); 13 are
the networks of other tests; 14 are the layers and operations that it has pruning functions for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

Tensor = Any
IMAGE = (16, 16, 3)


def conv(
    x: Tensor, filters: int, size: int | tuple[int, int] = 3, strides: int = 1, **kwargs: Any
) -> Tensor:
    """A convolution with BatchNormalization and ReLU."""
    act = kwargs.pop("act", "relu")
    kwargs = {"padding": "same", "use_bias": False, **kwargs}
    x = layers.Conv2D(filters, size, strides=strides, **kwargs)(x)
    x = layers.BatchNormalization()(x)
    return layers.Activation(act)(x) if act else x


def classifier(body: Callable[[Tensor], Tensor], shape: tuple[int, ...] = IMAGE) -> keras.Model:
    """A body with a mean over its places and a Dense layer for 4 classes."""
    inputs = keras.Input(shape)
    x = body(inputs)
    if len(x.shape) > 2:
        x = ops.mean(x, axis=tuple(range(1, len(x.shape) - 1)))
    return keras.Model(inputs, layers.Dense(4)(x))


def gated(x: Tensor, reduced: int = 4, act: str = "sigmoid") -> Tensor:
    """Squeeze and excite."""
    s = layers.GlobalAveragePooling2D(keepdims=True)(x)
    s = layers.Conv2D(reduced, 1, activation="relu")(s)
    return x * layers.Conv2D(x.shape[-1], 1, activation=act)(s)


# Families of torchvision.


def alexnet(x: Tensor) -> Tensor:
    for filters in (8, 12, 8):
        x = layers.Conv2D(filters, 3, activation="relu", padding="same")(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
    return layers.Dense(16, activation="relu")(layers.Dense(16, activation="relu")(x))


def vgg(x: Tensor, norm: bool = False) -> Tensor:
    for filters in (8, 12):
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same")(x)
            x = layers.ReLU()(layers.BatchNormalization()(x) if norm else x)
        x = layers.MaxPooling2D(2)(x)
    return layers.Dense(16, activation="relu")(layers.Flatten()(x))


def basic(x: Tensor) -> Tensor:
    x = conv(x, 8)
    for filters, strides in ((8, 1), (12, 2)):
        short = x if strides == 1 else conv(x, filters, 1, strides, act=None)
        x = layers.ReLU()(conv(conv(x, filters, 3, strides), filters, act=None) + short)
    return x


def bottleneck(
    x: Tensor, inner: int = 6, groups: int = 1, gate: bool = False, outer: int = 16
) -> Tensor:
    x = conv(x, outer)
    for _ in range(2):
        y = conv(conv(x, inner, 1), inner, groups=groups)
        y = gated(y) if gate else y
        x = layers.ReLU()(conv(y, outer, 1, act=None) + x)
    return x


def densenet(x: Tensor) -> Tensor:
    x = layers.Conv2D(8, 3, padding="same")(x)
    for _ in range(2):
        for _ in range(2):
            y = layers.ReLU()(layers.BatchNormalization()(x))
            y = layers.Conv2D(4, 3, padding="same")(conv(y, 8, 1))
            x = layers.Concatenate()([x, y])
        x = layers.AveragePooling2D(2)(conv(x, x.shape[-1] // 2, 1))
    return x


def squeezenet(x: Tensor) -> Tensor:
    for _ in range(2):
        s = layers.Conv2D(6, 1, activation="relu")(x)
        wide = layers.Conv2D(8, 3, padding="same", activation="relu")(s)
        x = layers.Concatenate()([layers.Conv2D(8, 1, activation="relu")(s), wide])
    return x


def inception(x: Tensor, factored: bool = False) -> Tensor:
    for _ in range(2):
        pooled = layers.MaxPooling2D(3, strides=1, padding="same")(x)
        middle = conv(x, 6, 1)
        middle = conv(conv(middle, 6, (1, 5)), 6, (5, 1)) if factored else conv(middle, 6, 5)
        x = layers.Concatenate()([conv(x, 4, 1), middle, conv(pooled, 4, 1)])
    return x


def inverted(x: Tensor, act: str = "relu6", gate: str = "", fused: bool = False) -> Tensor:
    x = conv(x, 8, act=act)
    for _ in range(2):
        y = conv(x, 24, 3 if fused else 1, act=act)
        if not fused:
            y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
            y = layers.Activation(act)(layers.BatchNormalization()(y))
        y = gated(y, act=gate) if gate else y
        x = conv(y, 8, 1, act=None) + x
    return x


def convnext(x: Tensor) -> Tensor:
    x = layers.LayerNormalization()(layers.Conv2D(8, 4, strides=4)(x))
    for _ in range(2):
        y = layers.LayerNormalization()(layers.DepthwiseConv2D(3, padding="same")(x))
        y = layers.Dense(8)(layers.Dense(32, activation="gelu")(y))
        x = x + layers.DepthwiseConv2D(1, use_bias=False)(y)
    return layers.LayerNormalization()(x)


def transformer(x: Tensor, heads: int = 4, size: int = 4) -> Tensor:
    """A block of a vision transformer."""
    y = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(heads, size)(y, y)
    y = layers.LayerNormalization()(x)
    return x + layers.Dense(x.shape[-1])(layers.Dense(32, activation="gelu")(y))


def vit(x: Tensor) -> Tensor:
    x = layers.Reshape((16, 12))(layers.Conv2D(12, 4, strides=4)(x))
    return layers.LayerNormalization()(transformer(transformer(x)))


def windows(x: Tensor, size: int) -> Tensor:
    _, rows, columns, channels = x.shape
    x = ops.reshape(x, (-1, rows // size, size, columns // size, size, channels))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, size * size, channels))


def from_windows(x: Tensor, size: int, rows: int, columns: int) -> Tensor:
    channels = x.shape[-1]
    x = ops.reshape(x, (-1, rows // size, columns // size, size, size, channels))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, rows, columns, channels))


def joint_attention(x: Tensor, heads: int, size: int) -> Tensor:
    """Queries, keys and values by one Dense layer, as in timm and in torchvision's Swin."""
    places = x.shape[1]
    joint = ops.reshape(layers.Dense(3 * heads * size)(x), (-1, places, 3, heads, size))
    query, key, value = ops.unstack(ops.transpose(joint, (2, 0, 3, 1, 4)), 3, axis=0)
    scores = ops.softmax(ops.matmul(query * size**-0.5, ops.transpose(key, (0, 1, 3, 2))))
    mixed = ops.transpose(ops.matmul(scores, value), (0, 2, 1, 3))
    return layers.Dense(x.shape[-1])(ops.reshape(mixed, (-1, places, heads * size)))


def swin(x: Tensor) -> Tensor:
    x = layers.Conv2D(8, 2, strides=2)(x)
    for shift in (0, 2):
        y = ops.roll(layers.LayerNormalization()(x), (-shift, -shift), axis=(1, 2))
        y = from_windows(joint_attention(windows(y, 4), 2, 4), 4, 8, 8)
        x = x + ops.roll(y, (shift, shift), axis=(1, 2))
        y = layers.Dense(24, activation="gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(8)(y)
    corners = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]  # patch merging
    x = layers.LayerNormalization()(ops.concatenate(corners, axis=-1))
    return layers.Dense(16, use_bias=False)(x)


def shufflenet(x: Tensor) -> Tensor:
    x = conv(x, 16)
    for _ in range(2):
        one, other = ops.split(x, 2, axis=-1)
        other = layers.DepthwiseConv2D(3, padding="same")(conv(other, 8, 1))
        x = layers.Concatenate()([one, conv(layers.BatchNormalization()(other), 8, 1)])
        x = ops.reshape(x, (-1, 16, 16, 2, 8))
        x = ops.reshape(ops.transpose(x, (0, 1, 2, 4, 3)), (-1, 16, 16, 16))
    return x


def segmentation(head: Callable[[Tensor, Tensor], Tensor]) -> keras.Model:
    inputs = keras.Input(IMAGE)
    low = conv(inputs, 8, strides=2)
    return keras.Model(inputs, head(low, conv(low, 12, strides=2)))


def fcn(low: Tensor, high: Tensor) -> Tensor:
    scores = layers.Conv2D(3, 1)(layers.Dropout(0.1)(conv(high, 8)))
    return layers.Resizing(16, 16)(scores)


def deeplab(low: Tensor, high: Tensor) -> Tensor:
    rates = [conv(high, 6, dilation_rate=rate) for rate in (1, 2)]
    whole = conv(layers.GlobalAveragePooling2D(keepdims=True)(high), 6, 1)
    parts = layers.Concatenate()([*rates, layers.UpSampling2D(4)(whole)])
    return layers.UpSampling2D(4)(layers.Conv2D(3, 1)(conv(conv(parts, 8, 1), 8)))


def lraspp(low: Tensor, high: Tensor) -> Tensor:
    scale = layers.GlobalAveragePooling2D(keepdims=True)(high)
    x = conv(high, 8, 1) * layers.Conv2D(8, 1, activation="sigmoid")(scale)
    return layers.Conv2D(3, 1)(layers.UpSampling2D(2)(x)) + layers.Conv2D(3, 1)(low)


# Networks of other tests.


def concat(x: Tensor) -> Tensor:
    parts = [conv(x, width, 1) for width in (4, 6, 8)]
    return conv(layers.Concatenate()(parts), 8, 1)


def cascaded_concat(x: Tensor) -> Tensor:
    one = layers.Concatenate()([conv(x, 4), conv(x, 6)])
    two = layers.Concatenate()([one, conv(one, 6)])
    return conv(layers.Concatenate()([two, one]), 8)


def place_concat(x: Tensor) -> Tensor:
    return conv(layers.Concatenate(axis=1)([conv(x, 8), conv(x, 8, 1)]), 8)


def concat_split(x: Tensor) -> Tensor:
    side = conv(conv(x, 10, 1), 10, 1)
    one, other = ops.split(conv(conv(x, 10, 1), 20, 1), [10], axis=-1)
    return conv(layers.Concatenate()([one, side]), 10, 1) + other


def split() -> keras.Model:
    inputs = keras.Input((7, 7, 8))
    shared = layers.Conv2D(8, 1)
    one, two, three = ops.split(conv(conv(inputs, 8, 1), 32, 1), [8, 16], axis=-1)
    three = layers.Conv2D(8, 1)(three)
    outputs = [layers.Conv2D(4, 1)(x) for x in (shared(one), shared(two), three)]
    return keras.Model(inputs, outputs)


def reshape(x: Tensor) -> Tensor:
    x = layers.Reshape((4, 4, 8))(layers.Dense(128, activation="relu")(x))
    for filters in (8, 6):
        x = layers.Conv2DTranspose(filters, 4, strides=2, padding="same", activation="relu")(x)
    return layers.Flatten()(x)


def fully_connected(x: Tensor) -> Tensor:
    for _ in range(3):
        x = layers.Dense(16, activation="relu")(x)
    return x


def several_inputs_and_outputs() -> keras.Model:
    inputs = [keras.Input((12,)), keras.Input((8,))]
    one, two = (layers.Dense(8, activation="relu")(x) for x in inputs)
    joint = layers.Dense(8, activation="relu")(layers.Concatenate()([one, two]))
    return keras.Model(inputs, [layers.Dense(2)(x) for x in (one, two, joint)])


def single_channel_output() -> keras.Model:
    inputs = keras.Input(IMAGE)
    return keras.Model(inputs, layers.Conv2D(1, 3)(conv(conv(inputs, 8), 8)))


def lenet(x: Tensor) -> Tensor:
    for filters in (6, 16):
        x = layers.MaxPooling2D(2)(layers.Conv2D(filters, 3, activation="relu")(x))
    x = ops.reshape(x, (-1, 64))
    return layers.Dense(24, activation="relu")(layers.Dense(32, activation="relu")(x))


def customized(x: Tensor) -> Tensor:
    """Torch-Pruning's example of a layer of one's own, written with `keras.ops`."""
    x = layers.Dense(16, activation="relu")(x)
    norm = ops.sqrt(ops.sum(ops.square(x), axis=1, keepdims=True) + 1e-6)
    x = ops.expand_dims(x / norm, 1)
    x = ops.squeeze(layers.DepthwiseConv1D(1)(x), 1)  # a scale and a bias a channel
    return layers.Dense(16)(x)


def unused(x: Tensor) -> Tensor:
    used, _ = ops.split(conv(x, 16), 2, axis=-1)
    return conv(used, 8)


def parameters(x: Tensor) -> Tensor:
    x = conv(x, 8)
    scaled = layers.DepthwiseConv2D(1, use_bias=False)(conv(x, 8, act=None))
    return conv(x + scaled, 8)


# Layers and operations.


def unbound(x: Tensor) -> Tensor:
    joint = ops.reshape(layers.Dense(24)(x), (-1, 8, 3, 8))
    one, two, three = ops.unstack(joint, 3, axis=2)
    return layers.Dense(8)(ops.sum(ops.stack([one, ops.relu(two) * three], axis=1), axis=1))


def sliced(x: Tensor) -> Tensor:
    x = conv(x, 16)
    return conv(x[..., :8], 8) + conv(x[..., 8:], 8) + conv(x[:, ::-1], 8)


def pixel_shuffle(x: Tensor) -> Tensor:
    return conv(ops.depth_to_space(layers.Conv2D(32, 3, padding="same")(conv(x, 8)), 2), 8)


def wrapped(layer: Callable[[], Any], x: Tensor) -> Tensor:
    """A layer between two convolutions."""
    return conv(layer()(conv(x, 8)), 8)


def recurrent(layer: Any, x: Tensor) -> Tensor:
    return layer(12)(layer(12, return_sequences=True)(x))


def embedding() -> keras.Model:
    inputs = keras.Input((8,), dtype="int32")
    x = layers.Conv1D(12, 3, padding="same")(layers.Embedding(20, 16)(inputs))
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalMaxPooling1D()(x)))


def attention(x: Tensor) -> Tensor:
    x = layers.Dense(12)(x)
    return layers.MultiHeadAttention(4, 6, output_shape=10)(x, x)


def layer_norm(x: Tensor) -> Tensor:
    x = layers.LayerNormalization()(layers.Dense(12)(layers.Dense(12, activation="relu")(x)))
    return layers.Dense(12)(x)


def on(body: Callable[..., Tensor], *shape: int, **settings: Any) -> Callable[[], keras.Model]:
    """A function that returns a classifier with a body."""
    return functools.partial(classifier, functools.partial(body, **settings), shape or IMAGE)


def between(layer: Callable[..., Any], *args: Any, **settings: Any) -> Callable[[], keras.Model]:
    """A function that returns a classifier with a layer between two convolutions."""
    made = functools.partial(layer, *args, **settings)
    return functools.partial(classifier, functools.partial(wrapped, made))


SHAPES: dict[str, Callable[[], keras.Model]] = {
    "AlexNet": on(alexnet),
    "VGG": on(vgg),
    "VGG with BatchNormalization": on(vgg, norm=True),
    "ResNet, basic blocks": on(basic),
    "ResNet, bottlenecks": on(bottleneck),
    "Wide ResNet": on(bottleneck, inner=12),
    "ResNeXt": on(bottleneck, inner=8, groups=2),
    "RegNet X": on(bottleneck, inner=16, groups=4),
    "RegNet Y": on(bottleneck, inner=16, groups=4, gate=True),
    "DenseNet": on(densenet),
    "SqueezeNet": on(squeezenet),
    "GoogLeNet": on(inception),
    "Inception v3": on(inception, factored=True),
    "MNASNet": on(inverted, act="relu"),
    "MobileNetV2": on(inverted),
    "MobileNetV3": on(inverted, act="hard_silu", gate="hard_sigmoid"),
    "EfficientNet": on(inverted, act="silu", gate="sigmoid"),
    "EfficientNetV2": on(inverted, act="silu", gate="sigmoid", fused=True),
    "ConvNeXt": on(convnext),
    "ViT": on(vit),
    "Swin": on(swin),
    "ShuffleNetV2": on(shufflenet),
    "FCN": functools.partial(segmentation, fcn),
    "DeepLabV3": functools.partial(segmentation, deeplab),
    "LR-ASPP": functools.partial(segmentation, lraspp),
    "concat": on(concat),
    "cascaded concat": on(cascaded_concat),
    "concat over places": on(place_concat),
    "concat and split": on(concat_split),
    "split, shared layer": split,
    "Dense, reshape, transposed convolution": on(reshape, 16),
    "fully connected": on(fully_connected, 16),
    "several inputs and outputs": several_inputs_and_outputs,
    "output of one channel": single_channel_output,
    "LeNet": on(lenet),
    "customized layer": on(customized, 16),
    "unused channels": on(unused),
    "parameters outside of layers": on(parameters),
    "unbind and stack": on(unbound, 8, 6),
    "slices": on(sliced),
    "pixel shuffle": on(pixel_shuffle),
    "grouped convolution": between(layers.Conv2D, 8, 3, groups=2),
    "depthwise convolution": between(layers.DepthwiseConv2D, 3, depth_multiplier=2),
    "transposed convolution": between(layers.Conv2DTranspose, 8, 3, strides=2),
    "PReLU": between(layers.PReLU, shared_axes=[1, 2]),
    "GroupNormalization": between(layers.GroupNormalization, 4),
    "InstanceNormalization": between(layers.GroupNormalization, -1),
    "LayerNormalization": on(layer_norm, 12),
    "embedding": embedding,
    "LSTM": on(functools.partial(recurrent, layers.LSTM), 8, 6),
    "GRU": on(functools.partial(recurrent, layers.GRU), 8, 6),
    "attention with heads": on(attention, 8, 6),
}
