"""Merges of one range, and activations without a range, in training as in the file."""

import keras
import numpy as np
import pytest
from keras import layers
from slow_cases import slow_but

import tfnas
from tfnas.quantization.fake_quant import FakeQuant

RNG = np.random.default_rng(2)
X = RNG.normal(size=(64, 6)).astype("float32")
FAR = (3 * RNG.normal(size=(256, 6))).astype("float32")


def dense(units=4, activation=None):
    return layers.Dense(units, activation)


def one(merge):
    """A merge of two layers of its own, of one that is used elsewhere too, and of the input."""
    inputs = keras.Input((6,))
    shared = dense()(inputs)
    own = merge()([dense()(inputs), dense(activation="relu")(inputs)])
    beside = merge()([merge()([shared, dense()(inputs)]), merge()([shared, dense()(inputs)])])
    with_sum = merge()([layers.Add()([shared, shared]), dense(activation="sigmoid")(inputs)])
    raw = merge()([dense(6)(inputs), inputs])
    return keras.Model(inputs, [own, beside, with_sum, raw])


def with_values(model):
    rng = np.random.default_rng(2)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    return model


@pytest.mark.parametrize(
    "merge",
    slow_but(
        [layers.Concatenate, layers.Maximum, layers.Minimum],
        *(layers.Concatenate, layers.Minimum),
    ),
)
def test_branches_are_clipped_as_in_the_file(merge):
    trainable = tfnas.quantize_aware(with_values(one(merge)), data=X)
    file = tfnas.to_tflite(trainable, "int8")
    found, expected = file.predict(FAR, reference=True), trainable.predict(FAR, verbose=0)
    for tensor, answer, twin in zip(file.outputs, found, expected, strict=True):
        steps = np.abs(answer - twin) / tensor.scale
        assert steps.max() <= 2.01, tensor.name  # one a rounding in the depth
        assert np.median(steps) <= 1


def test_a_merge_of_one_range_has_the_same():
    # A range of its own was nearly the same, and the converter failed on such a pair.
    inputs = keras.Input((6,))
    twice = keras.ops.stack([inputs, inputs], axis=1)
    outputs = layers.Dense(4, name="dense")(layers.Flatten()(twice))
    model = with_values(keras.Model(inputs, outputs))
    trainable = tfnas.quantize_aware(model, data=X)
    ranges = [layer.name for layer in trainable.layers if isinstance(layer, FakeQuant)]
    assert sorted(ranges) == ["dense_range", "input_range"]
    file = tfnas.to_tflite(trainable, "int8")
    joined = [op for op in file.graph.operators if op.name == "CONCATENATION"][-1]
    assert len({tensor.scales for tensor in (*joined.inputs, *joined.outputs)}) == 1
    steps = np.abs(file.predict(X, reference=True) - trainable.predict(X, verbose=0))
    assert steps.max() <= 1.001 * file.outputs[0].scale


def both_ways(inputs):
    return layers.Bidirectional(layers.LSTM(4))(inputs)


def larger(inputs):
    return layers.Maximum()([layers.SimpleRNN(4)(inputs), dense()(inputs[:, 0])])


def used_twice(inputs):
    used = layers.SimpleRNN(3)(inputs)
    return layers.Concatenate()([used, dense()(used)])


@pytest.mark.parametrize(
    "merges",
    [(larger, used_twice), pytest.param((both_ways, larger, used_twice), marks=pytest.mark.slow)],
    ids=len,
)
def test_recurrent_layers_are_rounded_to_the_range_of_a_merge(merges):
    """To the converter a loop is a float operator, which can't get a range from behind it."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, [merge(inputs) for merge in merges])
    x = RNG.normal(size=(48, 5, 3)).astype("float32")
    trainable = tfnas.quantize_aware(model, data=x)
    file = tfnas.to_tflite(trainable, "int8")
    assert not [t.name for t in file.graph.tensors if t.dtype.startswith("float")]
    found, expected = file.predict(x, reference=True), trainable.predict(x, verbose=0)
    exact = model.predict(x, verbose=0)
    for tensor, answer, twin, number in zip(file.outputs, found, expected, exact, strict=True):
        steps = np.abs(answer - twin) / tensor.scale
        assert steps.max() <= 3.01, tensor.name
        assert np.median(steps) <= 1
        assert np.abs(twin - number).max() <= 0.05 * np.ptp(number)


def tables_joined(inputs):
    """Tables beside a ReLU, a sigmoid and each other; moved; used elsewhere too; as a maximum."""
    elu, selu = dense(activation="elu")(inputs), dense(activation="selu")(inputs)
    rows = [layers.Reshape((2, 2))(each) for each in (selu, dense(activation="relu")(inputs))]
    return [
        layers.Concatenate()([elu, dense(activation="sigmoid")(inputs), elu[:, :2]]),
        layers.Concatenate()([layers.Dropout(0.1)(each) for each in rows]),
        layers.Maximum()([dense(activation="softplus")(inputs), dense()(inputs)]),
        dense()(selu),
    ]


def test_tables_are_rounded_to_the_range_of_a_merge():
    """To the converter a table is a float operator, which can't get a range from behind it."""
    inputs = keras.Input((6,))
    model = with_values(keras.Model(inputs, tables_joined(inputs)))
    trainable = tfnas.quantize_aware(model, data=X)
    file = tfnas.to_tflite(trainable, "int8")
    assert not [t.name for t in file.graph.tensors if t.dtype.startswith("float")]
    found, expected = file.predict(X, reference=True), trainable.predict(X, verbose=0)
    exact = model.predict(X, verbose=0)
    for tensor, answer, twin, number in zip(file.outputs, found, expected, exact, strict=True):
        steps = np.abs(answer - twin) / tensor.scale
        assert steps.max() <= 3.01, tensor.name
        assert np.median(steps) <= 1
        assert np.abs(twin - number).max() <= 0.05 * np.ptp(number)


@pytest.mark.parametrize("merge", [layers.Maximum, layers.Minimum])
def test_a_maximum_of_floats_stays_float_too(merge):
    inputs = keras.Input((6,))
    branches = [layers.Dense(4, name="exact")(inputs), dense(activation="relu")(inputs)]
    model = with_values(keras.Model(inputs, dense(3)(merge(name="most")(branches))))
    spec = tfnas.QuantSpec("int8", layers={"exact": "float32"})
    trainable = tfnas.quantize_aware(model, spec, data=X)
    left = {each.name: each.reason for each in tfnas.unquantized_layers(trainable)}
    assert left["most"] == "joins numbers of a layer that stays float"
    file = tfnas.to_tflite(trainable, spec)
    steps = np.abs(file.predict(X, reference=True) - trainable.predict(X, verbose=0))
    assert steps.max() <= 2.01 * file.outputs[0].scale


def test_16_bits_agree_too():
    inputs = keras.Input((6,))
    model = with_values(keras.Model(inputs, layers.Maximum()([dense()(inputs), dense()(inputs)])))
    trainable = tfnas.quantize_aware(model, "int16x8", data=X)
    file = tfnas.to_tflite(trainable, "int16x8")
    steps = np.abs(file.predict(FAR) - trainable.predict(FAR, verbose=0)) / file.outputs[0].scale
    assert steps.max() <= 2.01  # of 65,535: the kernels multiply by numbers of 15 bits


def test_a_relu_before_a_merge_is_a_layer_of_the_float_model_again():
    inputs = keras.Input((6,))
    model = with_values(
        keras.Model(
            inputs, layers.Concatenate()([dense(activation="relu")(inputs), dense()(inputs)])
        )
    )
    stripped = tfnas.strip_quantization(tfnas.quantize_aware(model, data=X))
    np.testing.assert_allclose(
        stripped.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-5, atol=1e-5
    )


def test_a_relu_whose_parts_are_shuffled_is_one_layer_of_the_float_model_again():
    inputs = keras.Input((6,))
    parts = keras.ops.split(keras.ops.relu6(dense()(inputs)), 2, axis=-1)
    model = with_values(keras.Model(inputs, dense()(keras.ops.concatenate(parts[::-1], -1))))
    stripped = tfnas.strip_quantization(tfnas.quantize_aware(model, data=X))
    assert sum(isinstance(layer, layers.ReLU) for layer in stripped.layers) == 1
    np.testing.assert_allclose(
        stripped.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-5, atol=1e-5
    )


def test_a_layer_without_an_output_beside_0_has_a_range_of_its_own():
    inputs = keras.Input((6,))
    never = keras.initializers.Constant(-30.0)
    model = keras.Model(inputs, dense(3)(layers.Dense(4, "relu", bias_initializer=never)(inputs)))
    trainable = tfnas.quantize_aware(model, data=X)
    [dead] = [layer for layer in trainable.layers if getattr(layer, "relu", None) is not None]
    low, high = dead.grid_range()
    assert (float(low), float(high)) == (0.0, 1.0)
    assert not trainable.predict(X, verbose=0).any()


def test_post_training_ranges_are_replaced_where_they_are_of_no_use():
    inputs = keras.Input((4, 4, 1))
    turned = layers.Permute((2, 1, 3))(inputs)
    model = keras.Model(inputs, [turned, layers.Concatenate()([inputs, turned])])
    x = RNG.normal(size=(24, 4, 4, 1)).astype("float32")
    file = tfnas.to_tflite(model, "int8", x)
    assert file.origin["quantization_aware"] is False
    for answer, expected in zip(
        file.predict(x, reference=True), model.predict(x, verbose=0), strict=True
    ):
        np.testing.assert_allclose(answer, expected, atol=file.outputs[0].scale)
