"""Kinds of models that quantization-aware training takes: small ones, by name and in groups."""

import keras
import numpy as np
from keras import layers, ops
from slow_cases import slow_but

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


def examples(shape, count=200, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def adapted(layer):
    layer.adapt(2.0 * examples(IMAGE) + 1.0)
    return layer


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
