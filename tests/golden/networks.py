"""Ten small networks with weights and inputs that NumPy draws, the same in every process."""

import keras
import numpy as np
from keras import layers

from golden import names

CLASSES = 4
EXAMPLES = 48
IMAGE = (12, 12, 3)


def build(name, seed=0):
    """Returns a network, built anew.

    Args:
        name: One of `NETWORKS`.
        seed: Of its weights.
    """
    model = NETWORKS[name]()
    fill(model, seed)
    return model


def fill(model, seed=0):
    """Gives a model random weights: kernels by their fan-in, statistics near 0 and 1."""
    rng = np.random.default_rng([seed, 1])
    for variable in model.variables:
        noise = rng.normal(size=variable.shape)
        kind = variable.path.split("/")[-1]
        if "kernel" in kind or kind == "embeddings":
            value = noise * (2.0 / max(1, np.prod(variable.shape[:-1]))) ** 0.5
        elif kind in ("gamma", "moving_variance"):
            value = 1 + 0.4 * np.tanh(noise)
        elif kind in ("beta", "bias", "moving_mean"):
            value = 0.1 * noise
        else:
            continue
        variable.assign(value.astype("float32"))


def inputs(model, examples=EXAMPLES, seed=0):
    """Returns inputs of a model: an array, or a list of them."""
    rng = np.random.default_rng([seed, 2])
    scale = 255 if model.name == "space" else 1
    found = [scale * rng.random((examples, *x.shape[1:]), np.float32) for x in model.inputs]
    return found[0] if len(found) == 1 else found


def targets(model, examples=EXAMPLES, seed=0):
    """Returns class numbers, or a list of arrays like a model's several outputs."""
    rng = np.random.default_rng([seed, 3])
    if len(model.outputs) == 1 and len(model.outputs[0].shape) == 2:
        return rng.integers(0, model.outputs[0].shape[-1], examples)
    found = [rng.random((examples, *y.shape[1:]), np.float32) for y in model.outputs]
    return found[0] if len(found) == 1 else found


def compiled(model, optimizer=None):
    """Returns a model, compiled by what its outputs are."""
    classifies = len(model.outputs) == 1 and len(model.outputs[0].shape) == 2
    loss = "sparse_categorical_crossentropy" if classifies else "mse"
    optimizer = keras.optimizers.SGD(0.02) if optimizer is None else optimizer
    model.compile(optimizer, loss, jit_compile=False)
    return model


def _normalized(x, name, activation="relu"):
    x = layers.BatchNormalization(name=f"{name}_norm")(x)
    return layers.Activation(activation, name=f"{name}_act")(x) if activation else x


def _conv(x, name, filters, kernel=3, activation="relu", **options):
    x = layers.Conv2D(filters, kernel, padding="same", use_bias=False, name=name, **options)(x)
    return _normalized(x, name, activation)


def _head(x, image, name):
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(CLASSES, activation="softmax", name="head")(x)
    return keras.Model(image, x, name=name)


def _space():
    space = names.image_space((8, 8, 1), CLASSES, "microcontroller")
    rng = np.random.default_rng(0)
    sampled = [space.sample(rng) for _ in range(30)]
    built = space.build(min(sampled, key=lambda a: sum(stage.repeats for stage in a.stages)))
    return keras.Model(built.inputs, built.outputs, name="space")


def _residual():
    image = keras.Input(IMAGE, name="image")
    x = _conv(image, "stem", 8)
    for i, (filters, strides) in enumerate([(8, 1), (16, 2)]):
        y = _conv(x, f"block{i}_a", filters, strides=strides)
        y = _conv(y, f"block{i}_b", filters, activation=None)
        if strides > 1:
            x = _conv(x, f"block{i}_c", filters, 1, None, strides=strides)
        x = layers.Add(name=f"block{i}_add")([x, y])
        x = layers.ReLU(name=f"block{i}_out")(x)
    return _head(x, image, "residual")


def _depthwise():
    image = keras.Input(IMAGE, name="image")
    x = _conv(image, "stem", 8, strides=2)
    for i, filters in enumerate((16, 24)):
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"deep{i}")(x)
        x = _normalized(x, f"deep{i}", "relu6")
        x = _conv(x, f"point{i}", filters, 1, "relu6")
    return _head(x, image, "depthwise")


def _dense():
    x = row = keras.Input((32,), name="row")
    x = layers.Dense(48, use_bias=False, name="first")(x)
    x = _normalized(x, "first")
    x = layers.Dense(32, activation="relu", name="second")(x)
    x = layers.Dropout(0.2, name="drop")(x)
    x = layers.Dense(CLASSES, activation="softmax", name="head")(x)
    return keras.Model(row, x, name="dense")


def _series():
    x = series = keras.Input((32, 4), name="series")
    for i, filters in enumerate((8, 16)):
        x = layers.Conv1D(filters, 5, padding="same", use_bias=False, name=f"conv{i}")(x)
        x = _normalized(x, f"conv{i}")
        x = layers.MaxPooling1D(2, name=f"half{i}")(x)
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    x = layers.Dense(CLASSES, activation="softmax", name="head")(x)
    return keras.Model(series, x, name="series")


def _transposed():
    image = keras.Input(IMAGE, name="image")
    x = _conv(image, "down", 8, strides=2)
    x = layers.Conv2DTranspose(8, 3, strides=2, padding="same", name="up")(x)
    x = _normalized(x, "up")
    x = layers.Conv2D(3, 1, activation="sigmoid", name="colors")(x)
    return keras.Model(image, x, name="transposed")


def _two_ends():
    image, row = keras.Input(IMAGE, name="image"), keras.Input((8,), name="row")
    x = _conv(image, "left", 8, strides=2)
    x = layers.GlobalMaxPooling2D(name="pool")(x)
    y = layers.Dense(8, activation="relu", name="right")(row)
    both = layers.Concatenate(name="both")([x, y])
    both = layers.Dense(16, activation="relu", name="middle")(both)
    ends = [layers.Dense(3, name="one")(both), layers.Dense(2, name="two")(both)]
    return keras.Model([image, row], ends, name="two_ends")


def _separable():
    image = keras.Input(IMAGE, name="image")
    x = _conv(image, "stem", 8)
    for i, filters in enumerate((16, 16)):
        x = layers.SeparableConv2D(filters, 3, padding="same", name=f"separable{i}")(x)
        x = _normalized(x, f"separable{i}")
    x = layers.AveragePooling2D(2, name="half")(x)
    return _head(x, image, "separable")


def _grouped():
    image = keras.Input(IMAGE, name="image")
    x = _conv(image, "stem", 8)
    x = _conv(x, "wide", 8, dilation_rate=2)
    x = _conv(x, "groups", 16, groups=2)
    x = layers.Multiply(name="gate")([x, _conv(x, "weigh", 16, 1, "sigmoid")])
    return _head(x, image, "grouped")


def _plain():
    image = keras.Input(IMAGE, name="image")
    x = layers.Conv2D(8, 3, activation="relu", name="first")(image)
    x = layers.MaxPooling2D(2, name="half")(x)
    x = layers.Conv2D(16, 3, name="second")(x)
    x = layers.LeakyReLU(0.1, name="leaky")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dense(32, activation="relu", name="third")(x)
    x = layers.Dense(CLASSES, activation="softmax", name="head")(x)
    return keras.Model(image, x, name="plain")


NETWORKS = {
    "space": _space,
    "residual": _residual,
    "depthwise": _depthwise,
    "dense": _dense,
    "series": _series,
    "transposed": _transposed,
    "two_ends": _two_ends,
    "separable": _separable,
    "grouped": _grouped,
    "plain": _plain,
}
