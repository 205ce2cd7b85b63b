"""Tiny models of many kinds, each with data of a rule that it can learn.

`KINDS` maps a name to a :class:`ModelKind`; :func:`trained` returns its model after a moment of
training, and its data. Tests and the table of docs/coverage.md use the same list.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

EXAMPLES, SIZE, STEPS, FEATURES, WORDS, CLASSES = 96, 8, 12, 3, 20, 4
CLASSIFICATION = "sparse_categorical_crossentropy"


@dataclasses.dataclass(frozen=True)
class ModelKind:
    """A kind of model.

    Args:
        build: Returns an untrained model.
        data: Returns inputs and targets, (examples, ...).
        loss: What `compile` takes as loss.
    """

    build: Callable[[], keras.Model]
    data: Callable[[], tuple[Any, Any]]
    loss: Any = CLASSIFICATION


@functools.cache
def trained(name: str, epochs: int = 2) -> tuple[keras.Model, Any, Any]:
    """Returns a model of a kind after a moment of training, with its inputs and targets.

    Args:
        name: A name in `KINDS`.
        epochs: Passes over its data.
    """
    kind = KINDS[name]
    keras.utils.set_random_seed(0)
    model, (x, y) = kind.build(), kind.data()
    model.compile(keras.optimizers.Adam(0.01), kind.loss, jit_compile=False)
    model.fit(batches(x, y), epochs=epochs, verbose=0, shuffle=False)
    return model, x, y


def batches(x: Any, y: Any, size: int = 32) -> tf.data.Dataset:
    """Returns data in batches: Keras reads no strings from arrays."""
    return tf.data.Dataset.from_tensor_slices((as_tuple(x), y)).batch(size)


def as_tuple(x: Any) -> Any:
    """Returns inputs as a data set takes them: several ones as a tuple."""
    return tuple(x) if isinstance(x, list) else x


def answers(model: keras.Model, x: Any) -> list[np.ndarray]:
    """Returns the outputs of a model at inference, as a flat list of arrays in float64."""
    return flat(model(x, training=False))


def flat(outputs: Any) -> list[np.ndarray]:
    """Returns outputs as a flat list of arrays in float64."""
    arrays = map(ops.convert_to_numpy, keras.tree.flatten(outputs))
    return [np.asarray(each, np.float64) for each in arrays]


# Data.


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def images() -> tuple[np.ndarray, np.ndarray]:
    """Images whose class is the brightest quarter."""
    y = generator().integers(0, CLASSES, EXAMPLES)
    x = generator(1).random((EXAMPLES, SIZE, SIZE, 1), np.float32)
    half = SIZE // 2
    for image, label in zip(x, y, strict=True):
        row, column = divmod(int(label), 2)
        image[row * half : (row + 1) * half, column * half : (column + 1) * half] += 1.0
    return x / 2, y


def pairs_of_images() -> tuple[list[np.ndarray], np.ndarray]:
    """Pairs, and whether both have one class."""
    x, y = images()
    other = generator(2).permutation(EXAMPLES)
    return [x, x[other]], (y == y[other]).astype("float32")[:, None]


def masks() -> tuple[np.ndarray, np.ndarray]:
    """Images, and which of their pixels are bright."""
    x, _ = images()
    return x, (x > 0.5).astype("float32")


def boxes() -> tuple[np.ndarray, np.ndarray]:
    """Images, and the corner of the brightest quarter with its size."""
    x, y = images()
    corners = np.stack([y // 2, y % 2, np.ones_like(y), np.ones_like(y)], axis=1)
    return x, (corners / 2).astype("float32")


def volumes() -> tuple[np.ndarray, np.ndarray]:
    x, y = images()
    return np.stack([x, 2 * x, x, x], axis=1), y


def videos() -> tuple[np.ndarray, np.ndarray]:
    x, y = images()
    return np.stack([x, x / 2, x], axis=1), y


def series() -> tuple[np.ndarray, np.ndarray]:
    """Series whose class is the feature with the largest mean."""
    x = generator(3).normal(size=(EXAMPLES, STEPS, FEATURES)).astype("float32")
    return x, x.mean(axis=1).argmax(axis=1)


def future() -> tuple[np.ndarray, np.ndarray]:
    """Waves, and their next three values."""
    start = generator(4).random((EXAMPLES, 1)) * 6
    wave = np.sin(start + 0.5 * np.arange(STEPS + 3)).astype("float32")
    return wave[:, :STEPS, None], wave[:, STEPS:]


def texts() -> tuple[np.ndarray, np.ndarray]:
    """Words, and whether most of them are in the first half of the vocabulary."""
    x = generator(5).integers(0, WORDS, (EXAMPLES, STEPS)).astype("int32")
    return x, (x < WORDS // 2).mean(axis=1).round().astype("int32")


def images_and_numbers() -> tuple[list[np.ndarray], np.ndarray]:
    x, y = images()
    return [x, generator(6).normal(size=(EXAMPLES, 3)).astype("float32")], y


def named_inputs() -> tuple[dict[str, np.ndarray], np.ndarray]:
    (image, numbers), y = images_and_numbers()
    return {"pixels": image, "numbers": numbers}, y


def two_targets() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    x, y = images()
    return x, {"quarter": y, "brightness": x.mean(axis=(1, 2))}


def table() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Rows of a table: a number, a word and a code."""
    age = generator(7).normal(40, 10, (EXAMPLES, 1)).astype("float32")
    city = generator(8).choice(["rome", "oslo", "lima"], (EXAMPLES, 1))
    code = generator(9).integers(0, 5, (EXAMPLES, 1))
    y = ((age > 40) ^ (city == "oslo")).astype("int32")[:, 0]
    return {"age": age, "city": city.astype(object), "code": code}, y


# Models.


def chain(*own: Any) -> keras.Model:
    """Layers over an image, with four classes at the end."""
    head = [layers.GlobalAveragePooling2D(), layers.Dense(CLASSES, "softmax")]
    return keras.Sequential([keras.Input((SIZE, SIZE, 1)), *own, *head])


def convolutional() -> keras.Model:
    return chain(
        layers.Conv2D(8, 3, use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv2D(16, 3, strides=2, activation="relu"),
    )


def separable() -> keras.Model:
    return chain(
        layers.Conv2D(8, 3, padding="same", activation="relu"),
        layers.DepthwiseConv2D(3, padding="same"),
        layers.SeparableConv2D(16, 3, activation="relu"),
    )


def residual() -> keras.Model:
    inputs = keras.Input((SIZE, SIZE, 1))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    y = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(x))
    x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(CLASSES, "softmax")(x))


def shared_layers() -> keras.Model:
    one, other = keras.Input((SIZE, SIZE, 1)), keras.Input((SIZE, SIZE, 1))
    convolution, dense = layers.Conv2D(8, 3, activation="relu"), layers.Dense(8)
    towers = [dense(layers.GlobalMaxPooling2D()(convolution(x))) for x in (one, other)]
    return keras.Model([one, other], layers.Dense(1, "sigmoid")(layers.Subtract()(towers)))


def nested() -> keras.Model:
    inputs = keras.Input((SIZE, SIZE, 1))
    x = layers.Conv2D(8, 3, activation="relu")(inputs)
    backbone = keras.Model(inputs, layers.Conv2D(16, 3, activation="relu")(x), name="backbone")
    return chain(layers.Rescaling(2.0), backbone)


@keras.saving.register_keras_serializable("tfnas_tests")
class SubclassedKind(keras.Model):
    """A block of layers, called as Python code."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.convolution = layers.Conv2D(8, 3, activation="relu")
        self.drop, self.pool = layers.Dropout(0.1), layers.GlobalAveragePooling2D()
        self.hidden, self.classify = layers.Dense(16, "relu"), layers.Dense(CLASSES, "softmax")

    def call(self, x: Any, training: bool | None = None) -> Any:
        x = self.pool(self.convolution(x))
        return self.classify(self.drop(self.hidden(x), training=training))


def sequential_without_input() -> keras.Model:
    return keras.Sequential(
        [layers.Flatten(), layers.Dense(16, "relu"), layers.Dense(CLASSES, "softmax")]
    )


def image_and_numbers(inputs: Any, image: Any, numbers: Any) -> keras.Model:
    x = layers.Flatten()(layers.Conv2D(8, 3, activation="relu")(image))
    x = layers.Concatenate()([layers.Dense(16, "relu")(x), layers.Dense(4, "relu")(numbers)])
    return keras.Model(inputs, layers.Dense(CLASSES, "softmax")(x))


def several_inputs() -> keras.Model:
    image, numbers = keras.Input((SIZE, SIZE, 1)), keras.Input((3,))
    return image_and_numbers([image, numbers], image, numbers)


def dict_inputs() -> keras.Model:
    image, numbers = keras.Input((SIZE, SIZE, 1), name="pixels"), keras.Input((3,), name="numbers")
    return image_and_numbers({"pixels": image, "numbers": numbers}, image, numbers)


def several_outputs() -> keras.Model:
    inputs = keras.Input((SIZE, SIZE, 1))
    x = layers.Conv2D(8, 3, activation="relu")(inputs)
    x = layers.Dense(16, "relu")(layers.Flatten()(x))
    outputs = {
        "quarter": layers.Dense(CLASSES, "softmax", name="quarter")(x),
        "brightness": layers.Dense(1, name="brightness")(x),
    }
    return keras.Model(inputs, outputs)


def text_pooling() -> keras.Model:
    inputs = keras.Input((STEPS,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(WORDS, 16)(inputs))
    return keras.Model(inputs, layers.Dense(2, "softmax")(layers.Dense(16, "relu")(x)))


def encoder(x: Any, width: int) -> Any:
    """A transformer block over (batch, places, width)."""
    attended = layers.MultiHeadAttention(2, width // 2)(x, x)
    x = layers.LayerNormalization()(layers.Add()([x, attended]))
    y = layers.Dense(width)(layers.Dense(2 * width, "gelu")(x))
    return layers.LayerNormalization()(layers.Add()([x, y]))


def text_transformer() -> keras.Model:
    inputs = keras.Input((STEPS,), dtype="int32")
    x = encoder(layers.Embedding(WORDS, 16)(inputs), 16)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(2, "softmax")(x))


def vision_transformer() -> keras.Model:
    inputs = keras.Input((SIZE, SIZE, 1))
    x = layers.Reshape((16, 16))(layers.Conv2D(16, 2, strides=2)(inputs))
    x = layers.GlobalAveragePooling1D()(encoder(x, 16))
    return keras.Model(inputs, layers.Dense(CLASSES, "softmax")(x))


def over_series(*own: Any) -> keras.Model:
    return keras.Sequential(
        [keras.Input((STEPS, FEATURES)), *own, layers.Dense(FEATURES, "softmax")]
    )


def lstm() -> keras.Model:
    return over_series(layers.LSTM(8))


def gru() -> keras.Model:
    return over_series(layers.GRU(8, return_sequences=True), layers.GRU(8))


def bidirectional() -> keras.Model:
    return over_series(layers.Bidirectional(layers.LSTM(6)))


def time_distributed() -> keras.Model:
    frames = keras.Input((3, SIZE, SIZE, 1))
    x = layers.TimeDistributed(layers.Conv2D(8, 3, activation="relu"))(frames)
    x = layers.TimeDistributed(layers.GlobalAveragePooling2D())(x)
    x = layers.Dense(16, "relu")(layers.Flatten()(x))
    return keras.Model(frames, layers.Dense(CLASSES, "softmax")(x))


def conv1d_series() -> keras.Model:
    return over_series(
        layers.Conv1D(16, 3, padding="causal", activation="relu"),
        layers.Conv1D(16, 3, activation="relu"),
        layers.GlobalAveragePooling1D(),
    )


def forecasting() -> keras.Model:
    inputs = keras.Input((STEPS, 1))
    x = layers.Conv1D(16, 3, dilation_rate=2, activation="relu")(inputs)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def u_net() -> keras.Model:
    inputs = keras.Input((SIZE, SIZE, 1))
    top = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.MaxPooling2D()(top))
    x = layers.Concatenate()([top, layers.UpSampling2D()(x)])
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    return keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid")(x))


@keras.saving.register_keras_serializable("tfnas_tests")
class Detector(keras.Model):
    """A model with a training step of its own."""

    def train_step(self, data: Any) -> Any:
        x, boxes_ = data
        with tf.GradientTape() as tape:
            loss = ops.mean(ops.abs(self(x, training=True) - boxes_))
        self.optimizer.apply(
            tape.gradient(loss, self.trainable_variables), self.trainable_variables
        )
        return {"loss": loss}


def detector() -> keras.Model:
    inputs = keras.Input((SIZE, SIZE, 1))
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(inputs)
    x = layers.Dense(16, "relu")(layers.Flatten()(x))
    return Detector(inputs, layers.Dense(4)(x))


def autoencoder() -> keras.Model:
    inputs = keras.Input((SIZE, SIZE, 1))
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv2DTranspose(8, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(inputs, layers.Conv2DTranspose(1, 3, strides=2, padding="same")(x))


def table_with_preprocessing() -> keras.Model:
    age = keras.Input((1,), name="age")
    city = keras.Input((1,), dtype="string", name="city")
    code = keras.Input((1,), dtype="int64", name="code")
    rows, _ = table()
    normalization = layers.Normalization(name="scaled_age")
    normalization.adapt(rows["age"])
    words = layers.StringLookup(vocabulary=["rome", "oslo", "lima"], name="city_index")
    codes = layers.IntegerLookup(vocabulary=list(range(5)), output_mode="one_hot", name="codes")
    place = layers.Flatten()(layers.Embedding(4, 4)(words(city)))
    x = layers.Concatenate()([normalization(age), place, codes(code)])
    x = layers.Dense(16, "relu")(x)
    inputs = {"age": age, "city": city, "code": code}
    return keras.Model(inputs, layers.Dense(2, "softmax")(x))


def of_policy(policy: str) -> keras.Model:
    """A convolutional network of another dtype policy, with probabilities in float32."""
    own = [
        layers.Conv2D(8, 3, dtype=policy),
        layers.BatchNormalization(dtype=policy),
        layers.ReLU(dtype=policy),
        layers.Conv2D(16, 3, activation="relu", dtype=policy),
        layers.GlobalAveragePooling2D(dtype=policy),
    ]
    last = "float64" if policy == "float64" else "float32"
    return keras.Sequential(
        [keras.Input((SIZE, SIZE, 1)), *own, layers.Dense(CLASSES, "softmax", dtype=last)]
    )


@keras.saving.register_keras_serializable("tfnas_tests")
class Swing(layers.Layer):
    """A layer of the user's own, with a weight."""

    def build(self, shape: Any) -> None:
        self.swing = self.add_weight(name="swing", shape=(shape[-1],), initializer="ones")

    def call(self, x: Any) -> Any:
        return x * self.swing + ops.sin(x)


def custom_layer() -> keras.Model:
    return chain(
        layers.Conv2D(8, 3, activation="relu"), Swing(name="swing"), layers.Conv2D(16, 3, name="c")
    )


def lambda_layer() -> keras.Model:
    return chain(
        layers.Lambda(lambda x: 2 * x - 1, output_shape=(SIZE, SIZE, 1)),
        layers.Conv2D(8, 3, activation="relu"),
        layers.Conv2D(16, 3),
    )


def conv3d() -> keras.Model:
    inputs = keras.Input((4, SIZE, SIZE, 1))
    x = layers.Conv3D(8, 3, activation="relu")(inputs)
    x = layers.Dense(16, "relu")(layers.GlobalAveragePooling3D()(x))
    return keras.Model(inputs, layers.Dense(CLASSES, "softmax")(x))


KINDS: dict[str, ModelKind] = {
    "convolutional": ModelKind(convolutional, images),
    "separable": ModelKind(separable, images),
    "residual": ModelKind(residual, images),
    "shared layers": ModelKind(shared_layers, pairs_of_images, "binary_crossentropy"),
    "nested": ModelKind(nested, images),
    "subclassed": ModelKind(SubclassedKind, images),
    "Sequential without Input": ModelKind(sequential_without_input, images),
    "several inputs": ModelKind(several_inputs, images_and_numbers),
    "several outputs": ModelKind(
        several_outputs, two_targets, {"quarter": CLASSIFICATION, "brightness": "mse"}
    ),
    "dict inputs": ModelKind(dict_inputs, named_inputs),
    "text with pooling": ModelKind(text_pooling, texts),
    "text transformer": ModelKind(text_transformer, texts),
    "vision transformer": ModelKind(vision_transformer, images),
    "LSTM": ModelKind(lstm, series),
    "GRU": ModelKind(gru, series),
    "Bidirectional": ModelKind(bidirectional, series),
    "TimeDistributed": ModelKind(time_distributed, videos),
    "Conv1D series": ModelKind(conv1d_series, series),
    "forecasting": ModelKind(forecasting, future, "mse"),
    "U-Net": ModelKind(u_net, masks, "binary_crossentropy"),
    "detector": ModelKind(detector, boxes, "mae"),
    "autoencoder": ModelKind(autoencoder, lambda: (images()[0], images()[0]), "mse"),
    "table": ModelKind(table_with_preprocessing, table),
    "mixed_float16": ModelKind(lambda: of_policy("mixed_float16"), images),
    "mixed_bfloat16": ModelKind(lambda: of_policy("mixed_bfloat16"), images),
    "float64": ModelKind(lambda: of_policy("float64"), images),
    "custom layer": ModelKind(custom_layer, images),
    "Lambda": ModelKind(lambda_layer, images),
    "Conv3D": ModelKind(conv3d, volumes),
}
