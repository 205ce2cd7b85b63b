"""How a quantization-aware model and its file are made and compared, and models that tests share.

The model of a kind and its file are made once and shared by the tests of a file.
"""

import functools
import re
import types

import keras
import numpy as np
from aware_kinds import GROUPS, IMAGE, KINDS, SEQUENCE, VECTOR, L, adapted, dense, examples
from keras import ops

import tfnas
from tfnas.quantization.aware_models import fake_quants


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


def small():
    return keras.Sequential([keras.Input(VECTOR), L.Dense(3, name="only")], name="small")
