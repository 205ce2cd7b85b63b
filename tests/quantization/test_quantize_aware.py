"""tfnas.quantize_aware: every kind of layer, and that a model and its file agree.

A kind is a small model. Its quantization-aware model and its file are made once and shared by the
tests.
"""

import functools
import re
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from slow_cases import slow_but

import tfnas
from tfnas.graph.batchnorm import layers_of
from tfnas.graph.functional import refresh_normalization
from tfnas.quantization.aware_models import fake_quants
from tfnas.quantization.fake_quant import FakeQuant
from tfnas.quantization.float32_model import to_float32
from tfnas.quantization.quantize_aware import quantize_aware_partly
from tfnas.quantization.quantized_kernel import QuantizedKernel, dilated_conv2d
from tfnas.tflite.file_weights import read_kernels

IMAGE, SEQUENCE, VECTOR = (8, 8, 3), (10, 3), (6,)
L = layers


def dense(x):
    return L.Dense(6)(x)


def conv(x):
    return L.Conv2D(4, 3, padding="same")(x)


def before(shape):
    """A layer with a kernel, for inputs of a shape."""
    return {IMAGE: conv, SEQUENCE: lambda x: L.Conv1D(4, 3)(x), VECTOR: dense}[shape]


def of_two(join, shape=IMAGE):
    """Joins two branches with very different ranges."""
    one = conv if len(shape) == 3 else dense
    return shape, lambda x: join(one(x), one(L.Rescaling(3.0, 1.0)(x)))


def then(*steps):
    def build(x):
        for step in steps:
            x = (fresh(step) if isinstance(step, L.Layer) else step)(x)
        return x

    return build


def fresh(layer):
    """A copy of a layer with a new name: Keras may have begun to count anew since the import."""
    return type(layer).from_config({k: v for k, v in layer.get_config().items() if k != "name"})


KERNELS = {
    "conv1d": (SEQUENCE, lambda: L.Conv1D(4, 3)),
    "conv1d strided": (SEQUENCE, lambda: L.Conv1D(4, 3, strides=2, padding="same")),
    "conv1d causal dilated": (SEQUENCE, lambda: L.Conv1D(4, 3, padding="causal", dilation_rate=2)),
    "conv2d": (IMAGE, lambda: L.Conv2D(4, 3)),
    "conv2d no bias strided": (
        IMAGE,
        lambda: L.Conv2D(4, 3, strides=2, padding="same", use_bias=False),
    ),
    "conv2d dilated": (IMAGE, lambda: L.Conv2D(4, 3, dilation_rate=2)),
    "conv2d groups": (IMAGE, lambda: L.Conv2D(6, 3, groups=3)),
    "depthwise1d": (SEQUENCE, lambda: L.DepthwiseConv1D(3, padding="same")),
    "depthwise1d strided": (SEQUENCE, lambda: L.DepthwiseConv1D(3, strides=2, depth_multiplier=2)),
    "depthwise2d": (IMAGE, lambda: L.DepthwiseConv2D(3)),
    "depthwise2d multiplier": (
        IMAGE,
        lambda: L.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2),
    ),
    "separable1d": (SEQUENCE, lambda: L.SeparableConv1D(4, 3)),
    "separable2d": (IMAGE, lambda: L.SeparableConv2D(4, 3, padding="same", depth_multiplier=2)),
    "transposed2d": (IMAGE, lambda: L.Conv2DTranspose(4, 3, strides=2, padding="same")),
    "transposed2d valid": (IMAGE, lambda: L.Conv2DTranspose(4, 2, strides=2, use_bias=False)),
    "dense": (VECTOR, lambda: L.Dense(5)),
    "dense on a sequence": (SEQUENCE, lambda: L.Dense(5, use_bias=False)),
}
ACTIVATIONS = {
    "relu": lambda: L.ReLU(),
    "relu of 6": lambda: L.ReLU(6.0),
    "relu of 0.5": lambda: L.ReLU(max_value=0.5),
    "leaky relu": lambda: L.LeakyReLU(0.2),
    "softmax": lambda: L.Softmax(),
}
ARGUMENTS = (
    "relu",
    "relu6",
    "leaky_relu",
    "hard_swish",
    "hard_silu",
    "swish",
    "silu",
    "sigmoid",
    "tanh",
    "softmax",
)
MERGES = {
    "add": L.Add,
    "subtract": L.Subtract,
    "multiply": L.Multiply,
    "concatenate": L.Concatenate,
    "average": L.Average,
    "maximum": L.Maximum,
    "minimum": L.Minimum,
}
MOVES = {
    "max pooling 1d": (SEQUENCE, lambda: L.MaxPooling1D(2)),
    "max pooling 2d": (IMAGE, lambda: L.MaxPooling2D(2, padding="same")),
    "average pooling 1d": (SEQUENCE, lambda: L.AveragePooling1D(2)),
    "average pooling 2d": (IMAGE, lambda: L.AveragePooling2D(2)),
    "average of whole images": (IMAGE, lambda: L.AveragePooling2D(8)),
    "global average 1d": (SEQUENCE, lambda: L.GlobalAveragePooling1D()),
    "global average 2d": (IMAGE, lambda: L.GlobalAveragePooling2D(keepdims=True)),
    "global max 1d": (SEQUENCE, lambda: L.GlobalMaxPooling1D()),
    "global max 2d": (IMAGE, lambda: L.GlobalMaxPooling2D()),
    "padding 1d": (SEQUENCE, lambda: L.ZeroPadding1D(2)),
    "padding 2d": (IMAGE, lambda: L.ZeroPadding2D(((1, 0), (0, 2)))),
    "cropping 1d": (SEQUENCE, lambda: L.Cropping1D((1, 2))),
    "cropping 2d": (IMAGE, lambda: L.Cropping2D(1)),
    "upsampling 1d": (SEQUENCE, lambda: L.UpSampling1D(2)),
    "upsampling 2d": (IMAGE, lambda: L.UpSampling2D(2)),
    "upsampling bilinear": (IMAGE, lambda: L.UpSampling2D(2, interpolation="bilinear")),
    "flatten": (IMAGE, lambda: L.Flatten()),
    "reshape": (IMAGE, lambda: L.Reshape((4, -1))),
    "permute": (IMAGE, lambda: L.Permute((2, 1, 3))),
    "repeat vector": (VECTOR, lambda: L.RepeatVector(3)),
    "dropout": (VECTOR, lambda: L.Dropout(0.3)),
    "spatial dropout": (IMAGE, lambda: L.SpatialDropout2D(0.3)),
    "gaussian noise": (VECTOR, lambda: L.GaussianNoise(0.3)),
}
AFFINE = {
    "rescaling": (IMAGE, lambda: L.Rescaling(1 / 127.5, -1.0)),
    "rescaling a channel": (IMAGE, lambda: L.Rescaling([0.5, 1.0, 4.0], [0.0, 1.0, -1.0])),
    "normalization": (IMAGE, lambda: L.Normalization(mean=[1.0, 2, 3], variance=[4.0, 1, 0.25])),
    "normalization of a vector": (VECTOR, lambda: L.Normalization(mean=0.5, variance=2.0)),
    "normalization that was adapted": (IMAGE, lambda: adapted(L.Normalization())),
    "batch normalization 1d": (VECTOR, lambda: L.BatchNormalization()),
    "batch normalization 2d": (SEQUENCE, lambda: L.BatchNormalization(scale=False)),
    "batch normalization 3d": (IMAGE, lambda: L.BatchNormalization(center=False)),
}
OPERATIONS = {
    "x + y": of_two(lambda x, y: x + y),
    "x - y": of_two(lambda x, y: x - y),
    "x * y": of_two(lambda x, y: x * y),
    "x + y of vectors": of_two(lambda x, y: x + y, VECTOR),
    "ops.maximum": of_two(ops.maximum),
    "ops.minimum": of_two(ops.minimum),
    "ops.concatenate": of_two(lambda x, y: ops.concatenate([x, y], axis=-1)),
    "ops.concatenate of rows": of_two(lambda x, y: ops.concatenate([x, y], axis=1)),
    "x + 1": (VECTOR, then(dense, lambda x: x + 1)),
    "1 - x": (IMAGE, then(conv, lambda x: 1 - x)),
    "x - 1": (SEQUENCE, then(lambda x: L.Conv1D(4, 3)(x), lambda x: x - np.float32(1))),
    "2.5 * x": (IMAGE, then(conv, lambda x: 2.5 * x)),
    "x / 3": (VECTOR, then(dense, lambda x: x / 3)),
    "-x": (IMAGE, then(conv, lambda x: -x)),
    "x + x": (VECTOR, then(dense, lambda x: x + x)),
    "x * x": (VECTOR, then(dense, lambda x: x * x)),
    "ops.relu": (IMAGE, then(conv, ops.relu)),
    "ops.relu6": (IMAGE, then(conv, ops.relu6)),
    "ops.sigmoid": (VECTOR, then(dense, ops.sigmoid)),
    "ops.tanh": (VECTOR, then(dense, ops.tanh)),
    "ops.silu": (VECTOR, then(dense, ops.silu)),
    "ops.hard_silu": (VECTOR, then(dense, ops.hard_silu)),
    "ops.leaky_relu": (VECTOR, then(dense, ops.leaky_relu)),
    "ops.softmax": (VECTOR, then(dense, ops.softmax)),
    "ops.mean": (IMAGE, then(conv, lambda x: ops.mean(x, axis=(1, 2)))),
    "ops.reshape": (IMAGE, then(conv, lambda x: ops.reshape(x, (-1, 64, 4)))),
    "ops.transpose": (IMAGE, then(conv, lambda x: ops.transpose(x, (0, 2, 1, 3)))),
    "ops.squeeze": (VECTOR, then(dense, lambda x: ops.squeeze(ops.expand_dims(x, 1), 1))),
    "ops.pad": (IMAGE, then(conv, lambda x: ops.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0))))),
    "a slice": (IMAGE, then(conv, lambda x: x[:, 1:, ::2])),
    "squeeze and excite": (
        IMAGE,
        then(
            conv,
            lambda x: (
                x * L.Dense(4, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(x))
            ),
        ),
    ),
}
# A ReLU after other layers than a convolution.
BEFORE_RELU = {
    **{
        f"{name}, relu": of_two(lambda x, y, m=m: L.ReLU()(m()([x, y])))
        for name, m in MERGES.items()
    },
    "pooling, relu": (IMAGE, then(conv, L.GlobalAveragePooling2D(), L.ReLU())),
    "max pooling, relu": (IMAGE, then(conv, L.MaxPooling2D(), L.ReLU())),
    "leaky relu, relu": (IMAGE, then(conv, L.LeakyReLU(), L.ReLU())),
    "swish, relu": (IMAGE, then(conv, L.Activation("swish"), L.ReLU())),
    "tanh, relu": (IMAGE, then(conv, L.Activation("tanh"), L.ReLU())),
    "relu6, relu": (IMAGE, then(conv, L.ReLU(6.0), L.ReLU())),
    "relu, relu of 1": (IMAGE, then(conv, L.ReLU(), L.ReLU(1.0))),
    "relu alone": (IMAGE, then(L.ReLU())),
    "dropout, relu": (IMAGE, then(conv, L.Dropout(0.3), L.ReLU())),
    "flatten, relu": (IMAGE, then(conv, L.Flatten(), L.ReLU())),
    "both sides of a relu": (IMAGE, then(conv, lambda x: x + conv(L.ReLU()(x)))),
    "relu beside another": (IMAGE, lambda x: L.Concatenate()([L.ReLU()(conv(x)), conv(x)])),
    "relu of 1 beside another": (IMAGE, lambda x: L.Maximum()([L.ReLU(1.0)(conv(x)), conv(x)])),
    "softmax beside another": (IMAGE, lambda x: L.Concatenate()([L.Softmax()(conv(x)), conv(x)])),
    "a relu of two users": (IMAGE, then(conv, L.ReLU(), lambda x: conv(x) * x)),
    "relu of the input": (IMAGE, lambda x: conv(L.ReLU()(x)) + conv(x)),
    "rescaling, relu": (IMAGE, then(L.Rescaling(2.0), L.ReLU())),
    "normalized vector, relu": (VECTOR, then(L.Dense(6), L.BatchNormalization(), L.ReLU())),
}


def shared(x):
    one = L.Conv2D(3, 3, padding="same")
    return one(one(x))


def residual(x):
    x = L.ReLU()(L.BatchNormalization()(conv(x)))
    y = L.BatchNormalization()(conv(L.ReLU()(L.BatchNormalization()(conv(x)))))
    return L.Dense(5, "softmax")(L.GlobalAveragePooling2D()(L.ReLU()(x + y)))


def inverted_residual(x):
    x = L.Conv2D(4, 1, use_bias=False)(x)
    y = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(8, 1, use_bias=False)(x)))
    y = L.ReLU(6.0)(L.BatchNormalization()(L.DepthwiseConv2D(3, padding="same")(y)))
    return L.Add()([x, L.BatchNormalization()(L.Conv2D(4, 1)(y))])


def inner_model(name, shape=IMAGE):
    inputs = keras.Input(shape)
    x = L.Conv2D(3, 3, padding="same", activation="relu", name="conv")(inputs)
    return keras.Model(inputs, L.BatchNormalization(name="norm")(x) + inputs, name=name)


def nested(x):
    return L.Flatten()(inner_model("inner")(L.Conv2D(3, 3, padding="same", name="conv")(x)))


def nested_twice(x):
    inner = inner_model("core")
    return L.Conv2D(2, 1, name="tail")(inner(inner(x)))


def nested_deep(x):
    inputs = keras.Input(IMAGE)
    middle = keras.Model(inputs, inner_model("a")(inputs) * inner_model("b")(inputs))
    return keras.Sequential([keras.Input(IMAGE), middle, L.Flatten(), L.Dense(3)])(x)


def shared_norm_and_relu(x):
    """One convolution: a BatchNormalization after one call of it, a ReLU after another."""
    one = L.Conv2D(3, 3, padding="same")
    return L.BatchNormalization()(one(x)) + L.ReLU()(one(L.ReLU()(x)))


def shared_norms(x):
    one = L.DepthwiseConv2D(3, padding="same")
    first = L.ReLU(6.0)(L.BatchNormalization()(one(x)))
    return one(L.ReLU()(L.BatchNormalization()(one(first))))


def shared_transposed(x):
    one = L.Conv2DTranspose(3, 3, padding="same")
    return L.ReLU()(one(L.BatchNormalization()(one(x))))


def shared_dense(x):
    one = L.Dense(6)
    return one(L.ReLU(6.0)(L.BatchNormalization()(one(x))))


def shared_with_itself(x):
    one = L.Conv2D(3, 3, padding="same", use_bias=False)
    y = one(x)
    return L.BatchNormalization()(y) + y + one(y)


STRUCTURES = {
    "shared": (IMAGE, shared),
    "shared, norm and relu": (IMAGE, shared_norm_and_relu),
    "shared, two norms": (IMAGE, shared_norms),
    "shared, transposed": (IMAGE, shared_transposed),
    "shared, dense": (VECTOR, shared_dense),
    "shared, norm and plain": (IMAGE, shared_with_itself),
    "residual": (IMAGE, residual),
    "inverted residual": (IMAGE, inverted_residual),
    "nested": (IMAGE, nested),
    "nested twice": (IMAGE, nested_twice),
    "nested deep": (IMAGE, nested_deep),
}


def norm_relu(x):
    return L.ReLU(6.0)(L.BatchNormalization()(x))


FAMILIES = {
    "kernels": {name: (shape, lambda x, k=k: k()(x)) for name, (shape, k) in KERNELS.items()},
    "kernels, norm, relu": {
        f"{name}, norm, relu": (shape, lambda x, k=k: norm_relu(k()(x)))
        for name, (shape, k) in KERNELS.items()
    },
    "activations": {
        **{f"layer {n}": (VECTOR, lambda x, k=k: k()(dense(x))) for n, k in ACTIVATIONS.items()},
        **{
            f"activation {n}": (VECTOR, lambda x, n=n: L.Activation(n)(dense(x))) for n in ARGUMENTS
        },
    },
    "arguments": {
        **{
            f"argument {n}": (IMAGE, lambda x, n=n: L.Conv2D(4, 3, activation=n)(x))
            for n in ARGUMENTS
        },
        "argument of dense": (VECTOR, lambda x: L.Dense(3, activation="relu")(x)),
        "argument of separable": (IMAGE, lambda x: L.SeparableConv2D(4, 3, activation="relu")(x)),
        "argument of depthwise": (IMAGE, lambda x: L.DepthwiseConv2D(3, activation="swish")(x)),
        "argument of transposed": (IMAGE, lambda x: L.Conv2DTranspose(2, 3, activation="relu")(x)),
    },
    "merges": {
        **{n: of_two(lambda x, y, m=m: m()([x, y])) for n, m in MERGES.items()},
        **{
            f"{n} of three": (VECTOR, lambda x, m=MERGES[n]: m()([dense(x), dense(x), x]))
            for n in ("add", "multiply", "concatenate", "maximum", "average")
        },
    },
    "moves": {
        n: (shape, lambda x, k=k, shape=shape: k()(before(shape)(x)))
        for n, (shape, k) in MOVES.items()
    },
    "affine": {
        n: (shape, lambda x, k=k, shape=shape: before(shape)(k()(x)))
        for n, (shape, k) in AFFINE.items()
    },
    "operations": OPERATIONS,
    "before relu": BEFORE_RELU,
    "structures": STRUCTURES,
}
KINDS = {name: kind for family in FAMILIES.values() for name, kind in family.items()}
# A group is one model of all kinds of a family with the same input shape, an output for each.
GROUPS = {
    f"{family} of {what}": tuple(n for n, (own, _) in kinds.items() if own == shape)
    for family, kinds in FAMILIES.items()
    for what, shape in (("images", IMAGE), ("sequences", SEQUENCE), ("vectors", VECTOR))
}
GROUPS = {name: kinds for name, kinds in GROUPS.items() if kinds}
# Of the two largest groups, of 24 and 10 kinds, the fast tests take these.
PARTS = {
    "some before relu of images": (
        *("add, relu", "multiply, relu", "minimum, relu", "pooling, relu", "leaky relu, relu"),
        *("relu, relu of 1", "both sides of a relu", "a relu of two users", "relu of the input"),
    ),
    "some structures of images": (
        *("shared, norm and relu", "shared, transposed", "residual", "nested twice"),
        "nested deep",
    ),
}
GROUPS |= PARTS
SHORT = (
    "kernels of images",
    "kernels of vectors",
    "activations of vectors",
    "merges of vectors",
    "moves of vectors",
    "affine of vectors",
    *PARTS,
)
ALL = slow_but([*GROUPS, *KINDS], *SHORT)
# Layers are saved by their configurations, whatever their kind: two groups stand for the others.
SAVED = slow_but([*GROUPS, *KINDS], "kernels of images", "some structures of images")


def adapted(layer):
    layer.adapt(2.0 * examples(IMAGE) + 1.0)
    return layer


def randomize(model, seed=0):
    """Gives biases and statistics random values."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.Model):
            continue
        for weight in layer.weights:
            if weight.name in ("gamma", "moving_variance"):
                weight.assign(rng.uniform(0.5, 2.0, weight.shape))
            elif weight.name in ("beta", "moving_mean", "bias"):
                weight.assign(rng.normal(0, 0.5, weight.shape))
    return model


def examples(shape, count=200, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


@functools.cache
def case(name):
    """The model of a kind or a group, its data, its quantization-aware model and its file."""
    kinds = GROUPS.get(name, (name,))
    shape = KINDS[kinds[0]][0]
    keras.utils.set_random_seed(1)
    inputs = keras.Input(shape, name="given")
    model = keras.Model(inputs, [KINDS[kind][1](inputs) for kind in kinds], name="net")
    return quantized(randomize(model), examples(shape), names=kinds)


def quantized(model, x, spec="int8", mode="int8", names=()):
    before = [np.array(w) for w in model.get_weights()]
    trainable = tfnas.quantize_aware(model, spec, data=x)
    return types.SimpleNamespace(
        model=model,
        x=x,
        trainable=trainable,
        before=before,
        file=file_of(trainable, mode),
        names=names or [None] * len(model.outputs),
    )


def allowed(model, spec="int8"):
    """The specification that leaves float what has no integer form, from the refusal."""
    try:
        tfnas.quantize_aware(model, spec)
    except ValueError as error:
        return eval("tfnas." + re.search(r"QuantSpec\(.*\)(?= leaves)", str(error))[0])
    return spec


def file_of(trainable, mode="int8"):
    """The file, or the ConversionError."""
    try:
        return tfnas.to_tflite(trainable, mode)
    except tfnas.ConversionError as error:
        return error


def predict(model, x):
    return [np.asarray(y) for y in keras.tree.flatten(model(x, training=False))]


def assert_near(found, expected, limit, names=None):
    """Compares root mean square differences, relative to the values' standard deviation."""
    too_far = {}
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.shape == b.shape
        error = np.sqrt(np.square(a - b).mean()) / (b.std() + 1e-6)
        if not error <= limit:
            too_far[names[i] if names else i] = float(error)
    assert too_far == {}


TAIL = 3.001  # steps, for 99% of the numbers
# MINIMUM brings its inputs to one scale first, which rounds once more.
LONG_TAIL = {"minimum, relu": 5.05}


def assert_agree(trainable, file, x, names=None, tail=TAIL):
    """The median difference of a model's and its file's outputs is a step at most."""
    found = keras.tree.flatten(file.predict(x))
    too_far = {}
    for i, (a, b) in enumerate(zip(found, predict(trainable, x), strict=True)):
        steps = np.abs(a - b) / file.outputs[i].scale
        assert len(np.unique(b)) > 3
        what = names[i] if names else i
        if not (
            np.median(steps) <= 1.001 and np.quantile(steps, 0.99) <= LONG_TAIL.get(what, tail)
        ):
            too_far[what] = float(np.median(steps)), float(np.quantile(steps, 0.99))
    assert too_far == {}


def kernels_of(artifact):
    """Element type of each kernel: the constants of more than one dimension."""
    return [
        op.inputs[1].dtype
        for op in artifact.graph.operators
        if op.name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
    ]


def floats_in(artifact):
    return [t.name for t in artifact.graph.tensors if t.dtype.startswith("float")]


def sorted_weights(model):
    return sorted((w.shape, *np.ravel(w).tolist()) for w in map(np.asarray, model.get_weights()))


# --- every kind of layer


@pytest.mark.parametrize("kind", ALL)
def test_the_quantization_aware_model_computes_nearly_the_same(kind):
    c = case(kind)
    assert tfnas.unquantized_layers(c.trainable) == []
    assert_near(predict(c.trainable, c.x), predict(c.model, c.x), 0.05, c.names)


@pytest.mark.parametrize("kind", ALL)
def test_the_file_holds_integers_only_and_agrees_with_the_model(kind):
    c = case(kind)
    if isinstance(c.file, Exception):
        raise c.file
    assert floats_in(c.file) == []
    assert {t.dtype for t in (*c.file.inputs, *c.file.outputs)} == {"int8"}
    assert c.file.origin["quantization_aware"] is True
    assert c.file.origin["calibration_examples"] == 0
    assert_agree(c.trainable, c.file, c.x, c.names)


@pytest.mark.parametrize("kind", ALL)
def test_strip_gives_back_the_model_and_its_weights(kind):
    c = case(kind)
    float_model = tfnas.strip_quantization(c.trainable)
    assert fake_quants(float_model) == []
    for a, b in zip(predict(float_model, c.x), predict(c.model, c.x), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6 * max(1.0, np.abs(b).max()))
    assert sorted_weights(float_model) == sorted_weights(c.model)


@pytest.mark.parametrize("kind", ALL)
def test_the_original_is_unchanged(kind):
    c = case(kind)
    for a, b in zip(c.model.get_weights(), c.before, strict=True):
        np.testing.assert_array_equal(a, b)
    again = keras.Model.from_config(c.model.get_config())
    again.set_weights(c.before)
    refresh_normalization(again)
    for a, b in zip(predict(again, c.x[:5]), predict(c.model, c.x[:5]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("kind", SAVED)
def test_saving_and_loading_changes_nothing(kind, tmp_path):
    c = case(kind)
    c.trainable.save(tmp_path / "m.keras")
    loaded = tfnas.load_model(tmp_path / "m.keras")
    for a, b in zip(predict(loaded, c.x), predict(c.trainable, c.x), strict=True):
        np.testing.assert_array_equal(a, b)
    assert tfnas.unquantized_layers(loaded) == []
    assert [type(layer) for layer in loaded.layers] == [type(i) for i in c.trainable.layers]


# --- models of other forms


def two_inputs_two_outputs():
    zebra, apple = keras.Input((4,), name="zebra"), keras.Input((3,), name="apple")
    joined = L.Concatenate()([L.Dense(8, "relu")(zebra), L.Dense(5)(apple)])
    return keras.Model([zebra, apple], [L.Dense(5)(joined), L.Dense(2, "sigmoid")(joined)])


def dictionaries():
    zebra, apple = keras.Input((4,), name="zebra"), keras.Input((3,), name="apple")
    joined = L.Concatenate()([zebra, apple])
    outputs = {"one": L.Dense(5)(joined), "another": L.Dense(2)(joined)}
    return keras.Model({"zebra": zebra, "apple": apple}, outputs)


def output_that_is_used_inside():
    zebra, apple = keras.Input((4,), name="zebra"), keras.Input((3,), name="apple")
    first = L.Dense(5)(zebra)
    return keras.Model([zebra, apple], [first, L.Dense(4)(L.Concatenate()([first, apple]))])


@pytest.mark.parametrize(
    "build",
    slow_but(
        [two_inputs_two_outputs, dictionaries, output_that_is_used_inside],
        *(dictionaries, output_that_is_used_inside),
    ),
)
def test_several_inputs_and_outputs(build):
    keras.utils.set_random_seed(2)
    model = randomize(build())
    x = {"zebra": 3 * examples((4,)), "apple": examples((3,), seed=1)}
    if not isinstance(model.input, dict):
        x = [x["zebra"], x["apple"]]
    c = quantized(model, x)
    # TensorFlow's converter refuses models with a dictionary of outputs, float ones too.
    in_a_file = not isinstance(model.output, dict)
    assert c.trainable.input_shape == model.input_shape
    assert c.trainable.output_shape == model.output_shape
    assert_near(predict(c.trainable, x), predict(model, x), 0.05)
    if in_a_file:
        assert floats_in(c.file) == []
        assert_agree(c.trainable, c.file, x, tail=3.05)  # 3.02 seen, between 3 and 4 steps
    float_model = tfnas.strip_quantization(c.trainable)
    assert_near(predict(float_model, x), predict(model, x), 1e-6)
    assert float_model.output_shape == model.output_shape


def test_sequential_models_nested_in_each_other():
    keras.utils.set_random_seed(3)
    stem = keras.Sequential([L.Conv2D(4, 3, name="c"), L.BatchNormalization(), L.ReLU()], name="s")
    model = keras.Sequential(
        [keras.Input(IMAGE), stem, L.Flatten(), L.Dense(4, activation="softmax", name="d")]
    )
    c = quantized(randomize(model), examples(IMAGE))
    assert_near(predict(c.trainable, c.x), predict(model, c.x), 0.05)
    assert floats_in(c.file) == []
    assert_agree(c.trainable, c.file, c.x)
    assert sorted_weights(tfnas.strip_quantization(c.trainable)) == sorted_weights(model)


def test_names_that_occur_twice_in_nested_models():
    def block(name):
        inputs = keras.Input(VECTOR)
        return keras.Model(
            inputs, L.Dense(6, name="conv")(L.Dense(6, name="deep")(inputs)), name=name
        )

    inputs = keras.Input(VECTOR)
    x = block("b")(block("a")(inputs))
    model = keras.Model(inputs, L.Dense(3, name="conv_2")(L.Dense(4, name="deep_relu")(x)))
    trainable = tfnas.quantize_aware(model, data=examples(VECTOR))
    assert_near(predict(trainable, examples(VECTOR)), predict(model, examples(VECTOR)), 0.05)


def test_layers_that_do_not_train_still_do_not():
    inputs = keras.Input(IMAGE)
    base = inner_model("base")
    base.trainable = False
    model = keras.Model(inputs, L.Dense(2, name="head")(L.Flatten()(base(inputs))))
    trainable = tfnas.quantize_aware(model, data=examples(IMAGE, 20))
    assert [w.shape for w in trainable.trainable_weights] == [
        w.shape for w in model.trainable_weights
    ]
    assert [w.shape for w in tfnas.strip_quantization(trainable).trainable_weights] == [
        (192, 2),
        (2,),
    ]


def test_images_of_bytes():
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    model = keras.Model(inputs, conv(L.Rescaling(1 / 255)(inputs)))
    x = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3)).astype(np.uint8)
    trainable = tfnas.quantize_aware(model, data=x)
    assert_near(predict(trainable, x), predict(model, x), 0.05)


def test_a_file_of_floats_is_that_of_the_stripped_model():
    c = case("kernels of vectors")
    for mode in ("float32", "float16", "dynamic"):
        assert tfnas.to_tflite(c.trainable, mode) == tfnas.to_tflite(
            tfnas.strip_quantization(c.trainable), mode
        )


# --- what stays float


@keras.saving.register_keras_serializable("test_qat")
class Doubled(L.Layer):
    def call(self, x):
        return ops.sin(x) * 2.0


class WithoutConfig(L.Layer):
    """A layer without get_config(), whose argument Keras can't save."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x):
        return self.function(x)


FLOATS = {
    "layer normalization": (VECTOR, lambda x: L.LayerNormalization(name="odd")(dense(x))),
    "gelu": (VECTOR, lambda x: L.Activation("gelu", name="odd")(dense(x))),
    "elu": (VECTOR, lambda x: L.ELU(name="odd")(dense(x))),
    "prelu": (VECTOR, lambda x: L.PReLU(name="odd")(dense(x))),
    "relu with a slope": (VECTOR, lambda x: L.ReLU(negative_slope=0.1, name="odd")(dense(x))),
    "lambda": (VECTOR, lambda x: L.Lambda(lambda v: v * v + 1.0, name="odd")(dense(x))),
    "custom": (VECTOR, lambda x: Doubled(name="odd")(dense(x))),
    "custom without config": (VECTOR, lambda x: WithoutConfig(ops.abs, name="odd")(dense(x))),
    "conv1d transposed": (SEQUENCE, lambda x: L.Conv1DTranspose(4, 3, name="odd")(x)),
    "attention": (SEQUENCE, lambda x: L.MultiHeadAttention(2, 2, name="odd")(x, x)),
    "time distributed": (SEQUENCE, lambda x: L.TimeDistributed(L.Dense(4), name="odd")(x)),
    "normalization of an axis": (
        SEQUENCE,
        lambda x: L.BatchNormalization(axis=1, name="odd")(L.Conv1D(4, 3)(x)),
    ),
    "normalization of every number": (
        IMAGE,
        lambda x: adapted(L.Normalization(None, name="odd"))(x),
    ),
    "normalization of a volume": (
        (4, 4, 4, 2),
        lambda x: L.BatchNormalization(name="odd")(L.Conv3D(2, 2)(x)),
    ),
    "times numbers": (VECTOR, lambda x: dense(x) * np.arange(1.0, 7.0, dtype="float32")),
    "a number divided": (VECTOR, lambda x: 1.0 / (2.0 + ops.relu(dense(x)))),
    "powers": (VECTOR, lambda x: dense(x) ** 3),
    "ops.exp": (VECTOR, lambda x: ops.exp(dense(x))),
    "ops.clip": (VECTOR, lambda x: ops.clip(dense(x), -0.5, 0.5)),
    "embedding": (VECTOR, lambda x: L.Embedding(9, 4, name="odd")(ops.cast(ops.abs(x), "int32"))),
}
QUICK = ("layer normalization", "custom", "custom without config")


@pytest.mark.parametrize(
    ("build", "shape", "mode"),
    slow_but(
        [
            (build, shape, mode)
            for build, shape in (
                *((shared, IMAGE), (shared_norm_and_relu, IMAGE)),
                (shared_dense, VECTOR),
            )
            for mode in ("int8", "int8x4")
        ],
        *((shared_norm_and_relu, IMAGE, "int8"), (shared_dense, VECTOR, "int8x4")),
    ),
)
def test_every_use_of_a_shared_kernel_has_its_integers(build, shape, mode):
    """By itself the converter chooses another grid for a kernel that is used twice."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input(shape)
    c = quantized(randomize(keras.Model(inputs, build(inputs))), examples(shape), mode, mode)
    (wrapper,) = (layer for layer in c.trainable.layers if isinstance(layer, QuantizedKernel))
    qmax, values = 2 ** (wrapper.bits - 1) - 1, np.asarray(wrapper.rounded(wrapper.layer.kernel))
    axes = None if shape == VECTOR else (0, 1, 2)
    expected = np.round(values / np.abs(values).max(axes, keepdims=True) * qmax)
    uses = [k for k in read_kernels(c.file) if k.operator in ("CONV_2D", "FULLY_CONNECTED")]
    assert [k.tensor.dtype for k in uses] == [f"int{wrapper.bits}"] * 2
    for use in uses:
        np.testing.assert_array_equal(np.sort(use.values, axis=None), np.sort(expected, axis=None))
    assert_agree(c.trainable, c.file, c.x)


def test_a_shared_kernel_is_in_the_file_once():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((64,))
    one = L.Dense(64)
    model = keras.Model(inputs, one(L.ReLU()(one(inputs))))
    file = tfnas.to_tflite(tfnas.quantize_aware(model, data=examples((64,))), "int8")
    assert file.size < 1.9 * one.kernel.shape[0] * one.kernel.shape[1]


@functools.cache
def float_case(name):
    shape, build = FLOATS[name]
    keras.utils.set_random_seed(1)
    inputs = keras.Input(shape, name="given")
    head = L.Dense(3, name="head")(L.Flatten()(build(inputs)))
    model = randomize(keras.Model(inputs, head, name="net"))
    return quantized(model, examples(shape, 100), allowed(model))


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=() if k in QUICK else pytest.mark.slow) for k in FLOATS]
)
def test_a_float_layer_does_not_prevent_the_quantization_of_others(kind):
    c = float_case(kind)
    assert_near(predict(c.trainable, c.x), predict(c.model, c.x), 0.1)
    float_model = tfnas.strip_quantization(c.trainable)
    assert_near(predict(float_model, c.x), predict(c.model, c.x), 1e-5)
    if isinstance(c.file, Exception):
        raise c.file
    assert {t.dtype for t in (*c.file.inputs, *c.file.outputs)} == {"int8"}
    skipped = tfnas.unquantized_layers(c.trainable)
    if not floats_in(c.file):
        assert skipped == []  # it has an integer form after all, which is fine
    else:
        assert len(skipped) >= 1
        assert all(s.name and s.kind and s.reason for s in skipped)
        assert "head" not in [s.name for s in skipped]
    last = [op for op in c.file.graph.operators if op.name == "FULLY_CONNECTED"][-1]
    assert last.inputs[1].dtype == last.outputs[0].dtype == "int8"
    assert_agree(c.trainable, c.file, c.x)


@pytest.mark.parametrize(
    ("kind", "what", "reason"),
    [
        (
            "custom",
            "Doubled",
            "no integer form of Doubled (tfnas.register_layer can give it one)",
        ),
    ],
)
def test_a_layer_that_stays_float_has_a_reason(kind, what, reason):
    (skipped,) = tfnas.unquantized_layers(float_case(kind).trainable)
    assert (skipped.name, skipped.kind, skipped.reason) == ("odd", what, reason)


# --- specifications


def three_layers():
    keras.utils.set_random_seed(4)
    return randomize(
        keras.Sequential(
            [
                keras.Input(IMAGE),
                L.Conv2D(4, 3, name="first"),
                L.BatchNormalization(),
                L.ReLU(),
                L.DepthwiseConv2D(3, name="second"),
                L.Flatten(),
                L.Dense(5, name="last"),
            ]
        )
    )


@functools.cache
def three(layers=(), mode="int8", ranges="moving_average"):
    spec = tfnas.QuantSpec.of(mode)
    spec = tfnas.QuantSpec(spec.weights, spec.activations, layers, ranges, percentile=99.0)
    c = quantized(three_layers(), examples(IMAGE), spec, spec)
    if isinstance(c.file, Exception):
        raise c.file
    return c


@pytest.mark.parametrize(
    ("layers", "mode", "expected"),
    [
        ((), "int8", ["int8", "int8", "int8"]),
        ((), "int8x4", ["int4", "int4", "int4"]),
        ((("last", "int8"),), "int8x4", ["int4", "int4", "int8"]),
        ((("first", "float32"), ("second", "int4")), "int8", ["float32", "int4", "int8"]),
        # How a layer is named is seen without a file: tests/quantization/test_spec.py.
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ((("first", "int4"),), "int8", ["int4", "int8", "int8"]),
                ((("*st", "int4"),), "int8", ["int4", "int8", "int4"]),
                ((("Dense", "int4"),), "int8", ["int8", "int8", "int4"]),
                ((("last", "float32"),), "int8", ["int8", "int8", "float32"]),
            )
        ),
    ],
)
def test_every_kernel_has_its_format_in_the_file(layers, mode, expected):
    c = three(layers, mode)
    assert kernels_of(c.file) == expected
    assert_agree(c.trainable, c.file, c.x)
    skipped = tfnas.unquantized_layers(c.trainable)
    assert len(skipped) == expected.count("float32")
    assert all(s.reason == "left float by the specification" for s in skipped)
    assert bool(floats_in(c.file)) == ("float32" in expected)


def test_four_bits_make_a_smaller_file():
    assert three((), "int8x4").file.size < three().file.size
    for wrapper in three((), "int8x4").trainable.layers:
        if isinstance(wrapper, QuantizedKernel):
            rounded = np.asarray(wrapper.rounded(wrapper.layer.kernel)).reshape(-1)
            assert all(
                len(np.unique(rounded[i :: wrapper.layer.kernel.shape[-1]])) <= 15
                for i in range(wrapper.layer.kernel.shape[-1])
                if wrapper.layer.name == "first"
            )


def test_an_average_over_whole_images_has_a_range_of_its_own():
    """TFLite's pooling rounds to the steps of its inputs, which are coarse for small means."""
    steps = [L.ReLU(), L.AveragePooling2D(8), L.Flatten(), L.Dense(2)]
    model = keras.Sequential([keras.Input(IMAGE), *steps])
    x = np.random.default_rng(0).normal(size=(20, *IMAGE)) ** 3
    file = tfnas.to_tflite(tfnas.quantize_aware(model, data=x), "int8")
    mean = next(op for op in file.graphs[0].operators if op.name == "MEAN")
    assert mean.outputs[0].scales[0] < 0.5 * mean.inputs[0].scales[0]


@pytest.mark.parametrize("layers", [{"outer/inner": "int4"}, {"inner": "int4"}])
def test_a_layer_in_a_nested_model_is_named_by_its_path(layers):
    inside = keras.Input(VECTOR)
    outer = keras.Model(inside, L.Dense(6, name="inner")(inside), name="outer")
    model = keras.Sequential([keras.Input(VECTOR), outer, L.Dense(3, name="last")])
    trainable = tfnas.quantize_aware(model, tfnas.QuantSpec(layers=layers))
    bits = [layer.bits for layer in trainable.layers if isinstance(layer, QuantizedKernel)]
    assert bits == [4, 8]


@pytest.mark.parametrize("pattern", ["both", "SeparableConv2D", L.SeparableConv2D])
def test_a_separable_layer_is_named_as_one(pattern):
    model = keras.Sequential(
        [keras.Input(IMAGE), L.SeparableConv2D(4, 3, name="both"), L.Flatten(), L.Dense(2)]
    )
    trainable = tfnas.quantize_aware(model, tfnas.QuantSpec(layers={pattern: "int4"}))
    bits = [layer.bits for layer in trainable.layers if isinstance(layer, QuantizedKernel)]
    assert bits == [4, 4, 8]


@pytest.mark.parametrize(
    "ranges",
    slow_but(
        ["moving_average", "percentile", "mse", "learned"],
        *("moving_average", "percentile", "learned"),
    ),
)
def test_every_way_to_find_ranges(ranges):
    c = three((), "int8", ranges)
    assert_near(predict(c.trainable, c.x), predict(c.model, c.x), 0.2)
    assert_agree(c.trainable, c.file, c.x)
    ends = [w for w in c.trainable.trainable_weights if w.name in ("low", "high")]
    assert bool(ends) == (ranges == "learned")
    first = fake_quants(c.trainable)[0]
    if ranges == "percentile":
        assert np.quantile(c.x, 0.985) < float(first.high) < np.quantile(c.x, 0.995)
        assert np.quantile(c.x, 0.005) < float(first.low) < np.quantile(c.x, 0.015)
    elif ranges == "mse":
        assert 0.5 * c.x.max() < float(first.high) <= 1.01 * c.x.max()
        assert 0.5 * c.x.min() > float(first.low) >= 1.01 * c.x.min()
    else:
        np.testing.assert_allclose([first.low, first.high], [c.x.min(), c.x.max()], rtol=1e-5)


def test_calibration_widens_observed_ranges():
    trainable = tfnas.quantize_aware(three_layers())
    first = fake_quants(trainable)[0]
    assert not first.observed
    assert tfnas.calibrate(trainable, examples(IMAGE, 64)) is trainable
    assert first.observed
    before = float(first.high)
    tfnas.calibrate(trainable, 10 * examples(IMAGE, 64))
    assert float(first.high) > before
    assert not first.observing


def test_ranges_hold_the_extremes_of_all_calibration_data():
    """Examples are read in batches; those above 0 come last."""
    x = np.sort(examples(VECTOR, 1024), axis=0)
    model = keras.Sequential([keras.Input(VECTOR), L.Dense(3)])
    first = fake_quants(tfnas.quantize_aware(model, data=x))[0]
    assert float(first.high) > 0.5 * x.max()
    assert float(first.low) < 0.5 * x.min()


# --- training


def classifier(width=8):
    keras.utils.set_random_seed(5)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            L.Conv2D(width, 3, use_bias=False, name="stem"),
            L.BatchNormalization(),
            L.ReLU(6.0),
            L.DepthwiseConv2D(3, padding="same", name="deep"),
            L.BatchNormalization(),
            L.Activation("hard_swish"),
            L.GlobalAveragePooling2D() if width > 8 else L.Flatten(),
            L.Dense(10, name="head"),
            L.Softmax(),
        ]
    )


def fit(model, digits, epochs=2, callbacks=(), count=1000, **settings):
    settings = {"jit_compile": False, **settings}
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", **settings)
    return model.fit(
        digits.x_train[:count],
        digits.y_train[:count],
        batch_size=50,
        epochs=epochs,
        verbose=0,
        callbacks=list(callbacks),
    )


def ranges_of(model):
    return np.array([(float(q.low), float(q.high)) for q in fake_quants(model)])


@pytest.fixture(scope="module")
def trained(digits):
    model = classifier()
    fit(model, digits, 8)
    trainable = tfnas.quantize_aware(model, data=digits.x_train[:200])
    before = ranges_of(trainable)
    history = fit(trainable, digits)
    return types.SimpleNamespace(
        model=model,
        trainable=trainable,
        before=before,
        losses=history.history["loss"],
        file=tfnas.to_tflite(trainable, "int8"),
    )


def test_training_changes_weights_and_ranges(trained):
    kernels = [w for w in trained.trainable.weights if w.name == "kernel"]
    originals = [w for w in trained.model.weights if w.name == "kernel"]
    for kernel, original in zip(kernels, originals, strict=True):
        assert np.abs(np.asarray(kernel) - np.asarray(original)).max() > 1e-4
    after = ranges_of(trained.trainable)
    fixed = np.array([q.fixed is not None for q in fake_quants(trained.trainable)])
    np.testing.assert_array_equal(after[fixed], trained.before[fixed])
    moved = ~fixed
    moved[0] = False  # of the input: every batch has the same range
    assert (after[moved, 1] != trained.before[moved, 1]).all()
    assert np.isfinite(trained.losses).all()
    assert trained.losses[-1] < 0.5


def test_model_and_file_choose_the_same_class(trained, digits):
    x = np.concatenate([digits.x_test, digits.x_train])[:1000]
    expected = trained.trainable.predict(x, verbose=0)
    found = trained.file.predict(x)
    top = np.sort(expected, axis=1)
    separated = top[:, -1] - top[:, -2] > 2 * trained.file.outputs[0].scale
    assert separated.mean() > 0.8
    same = found.argmax(1) == expected.argmax(1)
    assert same[separated].mean() >= 0.995
    assert (
        expected.argmax(1) == np.concatenate([digits.y_test, digits.y_train])[:1000]
    ).mean() > 0.85
    assert np.median(np.abs(found - expected)) <= 1.001 * trained.file.outputs[0].scale


def test_the_stripped_model_has_the_trained_weights(trained, digits):
    float_model = tfnas.strip_quantization(trained.trainable)
    kernels = [np.asarray(w) for w in trained.trainable.weights if w.name == "kernel"]
    for a, b in zip(kernels, [w for w in float_model.weights if w.name == "kernel"], strict=True):
        np.testing.assert_array_equal(a, b)
    x = digits.x_test[:200]
    assert_near(predict(float_model, x), predict(trained.trainable, x), 0.2)
    assert [type(layer).__name__ for layer in float_model.layers[1:]] == [
        type(layer).__name__ for layer in trained.model.layers
    ]
    again = tfnas.quantize_aware(float_model, data=x)
    assert floats_in(tfnas.to_tflite(again, "int8")) == []


def test_a_trained_model_is_saved_with_its_ranges_and_trains_on(trained, digits, tmp_path):
    trained.trainable.save(tmp_path / "m.keras")
    loaded = tfnas.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(ranges_of(loaded), ranges_of(trained.trainable))
    assert tfnas.to_tflite(loaded, "int8").sha256 == trained.file.sha256
    fit(loaded, digits, 1, count=200)
    assert (ranges_of(loaded) != ranges_of(trained.trainable)).any()


@pytest.mark.slow
def test_ranges_that_are_learned_have_gradients(digits):
    model = classifier()
    trainable = tfnas.quantize_aware(
        model, tfnas.QuantSpec(ranges="learned"), data=digits.x_train[:100]
    )
    before = ranges_of(trainable)
    fit(trainable, digits, 2)
    after = ranges_of(trainable)
    fixed = np.array([q.fixed is not None for q in fake_quants(trainable)])
    fixed[0] = True  # of the input: a training step is tiny compared with 255
    assert (before[~fixed, 1] != after[~fixed, 1]).all()
    relu = np.array([q.relu is not None for q in fake_quants(trainable)])
    assert (after[relu, 0] == 0).all()
    assert (after[:, 1] > after[:, 0]).all()
    assert_agree(trainable, tfnas.to_tflite(trainable, "int8"), digits.x_test[:200])


@pytest.mark.slow
def test_ranges_are_found_in_training_without_any_data_before(digits):
    trainable = tfnas.quantize_aware(classifier())
    with pytest.raises(ValueError, match="model must have seen data before it is exported"):
        tfnas.to_tflite(trainable, "int8")
    fit(trainable, digits, 1, count=400)
    assert_agree(trainable, tfnas.to_tflite(trainable, "int8"), digits.x_test[:200])


# --- schedules


@pytest.mark.slow
def test_before_the_start_epoch_training_is_that_of_a_float_model(digits):
    model = classifier()
    trainable = tfnas.quantize_aware(model)
    schedule = tfnas.QuantizationSchedule(start_epoch=5)
    losses = {}
    for name, m, callbacks in (("float", model, ()), ("later", trainable, (schedule,))):
        keras.utils.set_random_seed(6)
        losses[name] = fit(m, digits, 2, callbacks, count=300).history["loss"]
    np.testing.assert_allclose(losses["later"], losses["float"], rtol=1e-4)
    assert all(q.observed for q in fake_quants(trainable))
    with pytest.raises(ValueError, match=r"model must round its activations, got '.*' inactive"):
        tfnas.to_tflite(trainable, "int8")


@pytest.mark.slow
def test_a_schedule_starts_rounding_and_then_freezes_the_ranges(digits):
    trainable = tfnas.quantize_aware(classifier())
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(
            (fake_quants(trainable)[0].active, ranges_of(trainable))
        )
    )
    schedule = tfnas.QuantizationSchedule(start_epoch=1, freeze_epoch=2)
    fit(trainable, digits, 4, [schedule, watch], count=200)
    assert [active for active, _ in seen] == [False, True, True, True]
    assert (seen[0][1] != seen[1][1]).any()
    np.testing.assert_array_equal(seen[1][1], seen[2][1])
    np.testing.assert_array_equal(seen[2][1], seen[3][1])
    assert all(layer.frozen for layer in fake_quants(trainable))
    assert_agree(trainable, tfnas.to_tflite(trainable, "int8"), digits.x_test[:200])


@pytest.mark.parametrize("ranges", ["learned", pytest.param("percentile", marks=pytest.mark.slow)])
def test_frozen_ranges_do_not_move(ranges, digits):
    spec = tfnas.QuantSpec(ranges=ranges)
    trainable = tfnas.quantize_aware(classifier(), spec, data=digits.x_train[:100])
    before = ranges_of(trainable)
    fit(trainable, digits, 1, [tfnas.QuantizationSchedule(freeze_epoch=0)], count=200)
    np.testing.assert_array_equal(ranges_of(trainable), before)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"start_epoch": -1}, "start_epoch must be a whole number from 0 on, got -1"),
        ({"start_epoch": 1.5}, "start_epoch must be a whole number from 0 on, got 1.5"),
        ({"start_epoch": None}, "start_epoch must be a whole number from 0 on, got None"),
        ({"freeze_epoch": -2}, "freeze_epoch must be a whole number from 0 on, got -2"),
        ({"start_epoch": 3, "freeze_epoch": 2}, "freeze_epoch must not be before start_epoch 3"),
    ],
)
def test_schedules_that_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        tfnas.QuantizationSchedule(**settings)


def test_a_schedule_needs_a_quantization_aware_model(digits):
    with pytest.raises(ValueError, match="model must be quantization-aware, got 'sequential"):
        fit(classifier(), digits, 1, [tfnas.QuantizationSchedule()], count=50)


# --- zeros and few values survive


@pytest.mark.slow  # tests/graph/test_compatibility.py has zeros in a file after training
def test_zeros_survive_training_and_reach_the_file(digits):
    model = classifier()
    fit(model, digits, 1, count=300)
    pruned, report = tfnas.prune(model, 0.6)
    trainable = tfnas.quantize_aware(pruned, data=digits.x_train[:100])
    assert tfnas.keep_zeros(trainable) == report.zeros
    fit(trainable, digits, 2, count=500)
    zeros = tfnas.file_sparsity(tfnas.to_tflite(trainable, "int8"))
    assert zeros.weights == report.weights
    assert zeros.zeros >= report.zeros
    kernels = [
        np.asarray(w) for w in tfnas.strip_quantization(trainable).weights if w.name == "kernel"
    ]
    assert sum(int((k == 0).sum()) for k in kernels) == report.zeros


def test_few_values_of_a_kernel_stay_few():
    model = three_layers()
    rng = np.random.default_rng(0)
    for name in ("first", "second", "last"):
        kernel = model.get_layer(name).kernel
        kernel.assign(rng.choice([-0.7, -0.1, 0.0, 0.2, 0.5], kernel.shape))
    trainable = tfnas.quantize_aware(model, data=examples(IMAGE))
    file = tfnas.to_tflite(trainable, "int8")
    for op in file.graph.operators:
        if op.name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            kernel = np.frombuffer(op.inputs[1].constant, np.int8).reshape(op.inputs[1].shape)
            axis = op.inputs[1].channel_axis
            for i in range(kernel.shape[axis]):
                assert len(np.unique(np.take(kernel, i, axis))) <= 5
    assert sorted_weights(tfnas.strip_quantization(trainable)) == sorted_weights(model)


# --- other ways to train


@pytest.mark.parametrize(
    "settings",
    [
        {"steps_per_execution": 4},
        pytest.param({"run_eagerly": True}, marks=pytest.mark.slow),
        pytest.param({"jit_compile": True}, marks=pytest.mark.slow),
        pytest.param({"jit_compile": True, "ranges": "percentile"}, marks=pytest.mark.slow),
        pytest.param({"jit_compile": True, "ranges": "learned"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_ways_to_run_the_training_step(settings, digits):
    settings = dict(settings)
    spec = tfnas.QuantSpec(ranges=settings.pop("ranges", "moving_average"))
    trainable = tfnas.quantize_aware(classifier(), spec)
    losses = fit(trainable, digits, 2, count=200, **settings).history["loss"]
    assert losses[1] < losses[0]
    assert all(q.observed for q in fake_quants(trainable))
    assert_agree(trainable, tfnas.to_tflite(trainable, "int8"), digits.x_test[:200])


@pytest.mark.slow
def test_the_compiled_step_computes_what_the_plain_one_does(digits):
    found = []
    for jit in (False, True):
        trainable = tfnas.quantize_aware(classifier(), data=digits.x_train[:100])
        keras.utils.set_random_seed(7)
        found.append(fit(trainable, digits, 1, count=200, jit_compile=jit).history["loss"])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-2)


@pytest.mark.parametrize(
    "policy", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)]
)
def test_mixed_precision(policy, digits):
    keras.config.set_dtype_policy(policy)
    try:
        trainable = tfnas.quantize_aware(classifier(), data=digits.x_train[:100])
        losses = fit(trainable, digits, 2, count=300).history["loss"]
        assert losses[1] < losses[0]
        assert {w.dtype for w in trainable.trainable_weights} == {"float32"}
        assert {w.dtype for q in fake_quants(trainable) for w in q.weights} == {"float32"}
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.compute_dtype for layer in trainable.layers[1:]} == {policy[6:]}
    x = digits.x_test[:300]
    file, single = tfnas.to_tflite(trainable, "int8"), to_float32(trainable)
    assert floats_in(file) == []
    assert_agree(single, file, x)
    found, expected = file.predict(x), np.asarray(trainable(x), np.float32)
    assert np.median(np.abs(found - expected)) <= file.outputs[0].scale
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.97
    assert [q.name for q in fake_quants(single)] == [q.name for q in fake_quants(trainable)]
    np.testing.assert_array_equal(ranges_of(single), ranges_of(trainable))
    np.testing.assert_allclose(tfnas.to_tflite(trainable, "float32").predict(x), expected, atol=0.1)


def test_a_layer_of_half_precision_that_cannot_be_rebuilt_is_named():
    model = keras.Sequential(
        [
            keras.Input(VECTOR),
            L.Dense(3, dtype="mixed_float16"),
            WithoutConfig(ops.abs, dtype="mixed_float16", name="odd"),
        ]
    )
    trainable = quantize_aware_partly(model, data=examples(VECTOR))
    with pytest.raises(ValueError, match="must compute in float32 to be exported, got 'odd'"):
        tfnas.to_tflite(trainable, "int8")


def test_a_dilated_convolution_has_the_gradient_of_keras():
    """TensorFlow's one operation for it has none on CPUs without oneDNN."""
    layer = L.Conv2D(4, 3, dilation_rate=(2, 1), padding="same", use_bias=False)
    x = ops.convert_to_tensor(examples(IMAGE, 6))
    layer.build(x.shape)
    kernel, rates = layer.kernel.value, [2, 1]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        expected = ops.sum(layer(x) ** 2)
        found = ops.sum(dilated_conv2d(x, kernel, [1, 1], "SAME", rates) ** 2)
    for of in (x, kernel):
        np.testing.assert_allclose(
            tape.gradient(found, of), tape.gradient(expected, of), rtol=1e-4, atol=1e-4
        )


def test_a_dilated_convolution_trains():
    model = keras.Sequential([keras.Input(SEQUENCE), L.Conv1D(4, 3, dilation_rate=2)])
    x = examples(SEQUENCE, 16)
    trainable = tfnas.quantize_aware(model, data=x)
    before = np.array(model.layers[0].kernel)
    trainable.compile("sgd", "mse", run_eagerly=True)
    trainable.fit(x, np.ones((16, 6, 4)), epochs=1, verbose=0)
    [kernel] = layers_of(trainable, QuantizedKernel)
    assert (np.array(kernel.layer.kernel) != before).any()


def test_a_dilated_depthwise_convolution_is_refused_by_name():
    chain = [L.DepthwiseConv2D(3, dilation_rate=2, name="wide"), L.Flatten(), L.Dense(2)]
    model = keras.Sequential([keras.Input(IMAGE), *chain])
    with pytest.raises(ValueError, match=r'wide: no integer form .*\{"wide": "float32"\}'):
        tfnas.quantize_aware(model)
    spec = tfnas.QuantSpec("int8", layers={"wide": "float32"})
    x = examples(IMAGE)
    file = tfnas.to_tflite(tfnas.quantize_aware(model, spec, data=x), "int8")
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(file.predict(x), expected, atol=0.05 * np.ptp(expected))


def test_a_float32_model_is_returned_as_it_is():
    trainable = tfnas.quantize_aware(small())
    assert to_float32(trainable) is trainable


MIRRORED = """
import keras, numpy as np, tensorflow as tf
cpus = tf.config.list_physical_devices("CPU")
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpus[0], two)
import tfnas
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
rng = np.random.default_rng(0)
x = rng.normal(size=(128, 6)).astype("float32")
with strategy.scope():
    model = keras.Sequential([
        keras.Input((6,)), keras.layers.Dense(8), keras.layers.BatchNormalization(),
        keras.layers.ReLU(), keras.layers.Dense(3),
    ])
    trainable = tfnas.quantize_aware(model)
    trainable.compile("adam", "mse", jit_compile=False)
trainable.fit(x, x[:, :3], batch_size=32, epochs=2, verbose=0)
file = tfnas.to_tflite(trainable, "int8")
assert file.inputs[0].dtype == "int8"
assert abs(file.inputs[0].scale * 255 - (x.max() - x.min())) < 0.5 * (x.max() - x.min())
error = np.abs(file.predict(x) - np.asarray(trainable(x))) / file.outputs[0].scale
assert np.median(error) <= 1.001, np.median(error)

def trained(sparse, shared):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([
        keras.Input((6,)), keras.layers.Dense(32), keras.layers.ReLU(), keras.layers.Dense(3),
    ])
    model = tfnas.prune(model, 0.5)[0] if sparse else tfnas.cluster(model, 4)[0]
    trainable = tfnas.quantize_aware(model)
    if shared:
        tfnas.keep_clusters(trainable)
    trainable.compile("sgd", "mse", jit_compile=False)
    trainable.fit(x, x[:, :3], batch_size=32, epochs=2, verbose=0, shuffle=False)
    return trainable

for sparse, check in (
    (True, lambda kernel: (kernel == 0).mean() == 0.5),
    (False, lambda kernel: len(np.unique(kernel)) == 4),
):
    with strategy.scope():
        mirrored = trained(sparse, not sparse)
    for one, other in zip(mirrored.variables, trained(sparse, not sparse).variables):
        first, second = (replica.numpy() for replica in one.value.values)
        np.testing.assert_array_equal(first, second, err_msg=one.path)
        np.testing.assert_allclose(first, other.numpy(), atol=1e-4, err_msg=one.path)
        assert one.name != "kernel" or check(first), one.path
print("done")
"""


@pytest.mark.slow
def test_a_mirrored_strategy():
    done = subprocess.run(
        [sys.executable, "-c", MIRRORED], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.endswith("done\n")


# --- what is refused


def small():
    return keras.Sequential([keras.Input(VECTOR), L.Dense(3, name="only")], name="small")


@pytest.mark.parametrize("model", [None, "model", L.Dense(3)])
def test_other_objects_are_refused(model):
    with pytest.raises(ValueError, match="model must be a Keras 3 model, got"):
        tfnas.quantize_aware(model)


def test_a_model_that_was_never_built_is_refused():
    with pytest.raises(ValueError, match="model must be built, got 'raw'"):
        tfnas.quantize_aware(keras.Sequential([L.Dense(2)], name="raw"))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="own")
        self.dense = L.Dense(2)

    def call(self, x):
        return self.dense(x)


def test_a_subclassed_model_is_opened():
    model = Subclassed()
    model(np.zeros((1, 3)))
    trainable = tfnas.quantize_aware(model)
    assert "quantized_dense" in " ".join(layer.name for layer in trainable.layers)
    assert not tfnas.unquantized_layers(trainable)


def test_a_subclassed_model_without_known_shapes_is_refused():
    with pytest.raises(ValueError, match="model must be built, got 'own'"):
        tfnas.quantize_aware(Subclassed())


def test_a_model_that_is_quantized_already_is_refused():
    trainable = tfnas.quantize_aware(small())
    with pytest.raises(ValueError, match="model must not be quantized yet, got 'small', which is"):
        tfnas.quantize_aware(trainable)


def test_kernels_of_lora_and_of_keras_own_integers_are_refused_by_name():
    model = keras.Sequential([keras.Input((4,)), L.Dense(3, name="head")])
    model.get_layer("head").enable_lora(2)
    with pytest.raises(ValueError, match="no LoRA weights, got those of 'head'"):
        tfnas.quantize_aware(model)
    model = keras.Sequential([keras.Input((4,)), L.Dense(3, name="head")])
    model.get_layer("head").quantize("int8")
    for function in (tfnas.quantize_aware, tfnas.to_tflite):
        with pytest.raises(ValueError, match="got 'head' of int8 kernels by Keras' quantize"):
            function(model)


@pytest.mark.parametrize(
    "function", [tfnas.strip_quantization, lambda m: tfnas.calibrate(m, examples(VECTOR))]
)
def test_a_float_model_has_nothing_to_strip_or_calibrate(function):
    with pytest.raises(ValueError, match="model must be quantization-aware, got 'small'"):
        function(small())


@pytest.mark.parametrize("pattern", ["onyl", "Conv2D", "small"])
def test_a_specification_that_names_no_layer_is_refused(pattern):
    spec = tfnas.QuantSpec(layers={pattern: "int4"})
    with pytest.raises(ValueError, match=f"got '{pattern}', which matches none of only"):
        tfnas.quantize_aware(small(), spec)


@pytest.mark.parametrize("spec", ["float32", "float16", "dynamic"])
def test_specifications_of_floats_are_refused(spec):
    with pytest.raises(ValueError, match=f"spec must have integer .* got '{spec}'"):
        tfnas.quantize_aware(small(), spec)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match=r"mode must be one of float32, .*, got 'int3'"):
        tfnas.quantize_aware(small(), "int3")


@pytest.mark.parametrize("spec", ["int16x8", "int8x4", tfnas.QuantSpec(layers={"*": "int4"})])
def test_the_engine_of_tfmot_takes_eight_bits_alone(spec):
    with pytest.raises(ValueError, match="spec must be 'int8', tfmot's only one"):
        tfnas.quantize_aware(small(), spec, engine="tfmot")


@pytest.mark.parametrize("engine", ["keras", None, ""])
def test_an_unknown_engine_is_refused(engine):
    with pytest.raises(ValueError, match="engine must be 'tfnas' or 'tfmot', got"):
        tfnas.quantize_aware(small(), engine=engine)


BAD_DATA = {
    "empty": (np.zeros((0, 6)), "data must hold at least one example"),
    "nan": (np.full((5, 6), np.nan), "data must be finite"),
    "inf": (np.full((5, 6), np.inf), "data must be finite"),
    "shape": (np.zeros((5, 7)), r"data must have the shape"),
    "rank": (np.zeros((5, 6, 1)), r"data must have the shape"),
    "two inputs": ([np.zeros((5, 6)), np.zeros((5, 6))], "data must hold 1 input"),
}


@pytest.mark.parametrize("kind", BAD_DATA)
def test_data_that_does_not_fit_is_refused(kind):
    data, match = BAD_DATA[kind]
    with pytest.raises(ValueError, match=match):
        tfnas.quantize_aware(small(), data=data)
    trainable = tfnas.quantize_aware(small())
    with pytest.raises(ValueError, match=match):
        tfnas.calibrate(trainable, data)
    assert not any(q.observed or q.observing for q in fake_quants(trainable))


def test_export_before_any_data_was_seen_is_refused():
    trainable = tfnas.quantize_aware(small())
    match = "must have seen data before it is exported, got no range for 'input_range' and 1 more"
    with pytest.raises(ValueError, match=match):
        tfnas.to_tflite(trainable, "int8")


@pytest.mark.parametrize(("spec", "mode"), [("int8", "int16x8"), ("int8", "int8x4")])
def test_export_in_a_mode_of_other_bits_is_refused(spec, mode):
    trainable = tfnas.quantize_aware(small(), spec, data=examples(VECTOR))
    with pytest.raises(ValueError, match=f"mode must have .* got '{mode}'"):
        tfnas.to_tflite(trainable, mode)


def test_four_bits_need_calibration_or_training():
    with pytest.raises(ValueError, match="calibration must hold typical inputs for mode 'int8x4'"):
        tfnas.to_tflite(small(), "int8x4")
    assert kernels_of(tfnas.to_tflite(small(), "int8x4", examples(VECTOR))) == ["int4"]


def test_a_sparse_file_of_a_trained_model_is_refused():
    trainable = tfnas.quantize_aware(small(), data=examples(VECTOR))
    with pytest.raises(ValueError, match="sparse must be False for a quantization-aware model"):
        tfnas.to_tflite(trainable, "int8", sparse=True)


# --- the layers themselves


@pytest.mark.parametrize(
    "layer",
    [
        FakeQuant(4, "percentile", 0.9, 99.0, relu=6.0, name="r"),
        FakeQuant(fixed=(0.0, 0.5), after_float=True, frozen=True, active=False, name="f"),
        QuantizedKernel(L.Dense(3, name="inner"), 4, name="q"),
    ],
)
def test_layers_are_rebuilt_from_their_configuration(layer):
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


def test_a_kernel_of_zeros_and_constant_inputs_are_quantized():
    model = keras.Sequential([keras.Input(VECTOR), L.Dense(3), L.ReLU(), L.Dense(2)])
    model.layers[0].kernel.assign(np.zeros((6, 3)))
    trainable = tfnas.quantize_aware(model, data=np.zeros((10, 6)))
    np.testing.assert_array_equal(predict(trainable, np.zeros((4, 6)))[0], np.zeros((4, 2)))
    file = tfnas.to_tflite(trainable, "int8")
    np.testing.assert_allclose(file.predict(np.zeros((4, 6))), np.zeros((4, 2)), atol=1e-6)


def test_rounding_passes_the_gradient_inside_the_range_only():
    import tensorflow as tf

    layer = FakeQuant(8, fixed=(-1.0, 1.0))
    x = tf.constant([-2.0, -0.5, 0.3, 2.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    np.testing.assert_array_equal(tape.gradient(y, x), [0, 1, 1, 0])


@pytest.mark.parametrize("mode", slow_but(["int8", "int16x8"], "int16x8"))
def test_a_channel_of_tiny_weights_keeps_its_bias(mode):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 3, use_bias=False, name="conv")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    model = keras.Model(inputs, keras.layers.ReLU(6.0)(x))
    kernel = np.array(model.get_layer("conv").kernel)
    kernel[..., 2] *= 1e-9
    model.get_layer("conv").kernel.assign(kernel)
    model.get_layer("norm").beta.assign(np.linspace(0.5, 3.0, 6))
    images = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32")
    file = tfnas.to_tflite(tfnas.quantize_aware(model, mode, data=images), mode)
    found = file.predict(images)[..., 2]
    np.testing.assert_allclose(found, 1.5, atol=max(1.5 * file.outputs[0].scale, 1e-3))


def test_masks_reach_the_layers_behind():
    x = np.array([[3, 1, 0, 0], [2, 4, 1, 0]])
    inputs = keras.Input((4,))
    hidden = layers.Embedding(5, 3, mask_zero=True)(inputs)
    hidden = layers.Dense(3, name="each_step")(hidden)
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(hidden))
    trainable = tfnas.quantize_aware(model, "int8x4", data=x)
    # The mean over all steps, masked ones too, is another by far.
    np.testing.assert_allclose(trainable(x), model(x), atol=0.05)
