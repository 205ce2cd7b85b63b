"""Sequence layers and reversals in normal form compute what the original computes."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from slow_cases import slow_but

import tfnas
from tfnas.graph.functional import walk
from tfnas.quantization.normal_form import normal_form

X = np.random.default_rng(0).normal(size=(3, 4, 3)).astype("float32")


def normal(outputs, inputs):
    model = keras.Model(inputs, outputs)
    flat, _ = normal_form(model)
    return model(X), flat(X), [call.kind for call in walk(flat).calls]


@pytest.mark.parametrize("mode", slow_but(["ave", "concat", "mul", "sum"], "concat", "ave"))
def test_both_directions_are_two_layers_and_a_slice(mode):
    inputs = keras.Input((4, 3))
    wrapper = layers.Bidirectional(layers.GRU(2, return_sequences=True), merge_mode=mode)
    expected, found, kinds = normal(wrapper(inputs), inputs)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert {"Bidirectional", "Flip"}.isdisjoint(kinds)
    assert kinds.count("GRU") == 2


@pytest.mark.parametrize("axis", [1, -1, (1, 2), (-2,)])
def test_a_reversal_is_a_slice(axis):
    inputs = keras.Input((4, 3))
    expected, found, kinds = normal(ops.flip(inputs, axis=axis), inputs)
    np.testing.assert_array_equal(found, expected)
    assert kinds == ["GetItem"]


@pytest.mark.parametrize("axis", [None, 0, (0, 1)])
def test_a_reversed_batch_stays(axis):
    inputs = keras.Input((4, 3))
    expected, found, kinds = normal(ops.flip(inputs, axis=axis), inputs)
    np.testing.assert_array_equal(found, expected)
    assert kinds == ["Flip"]


def test_each_masked_call_of_a_layer_zeroes_its_outputs():
    shared = layers.GRU(3, return_sequences=True, zero_output_for_mask=True)
    x, mask = keras.Input((5, 2)), keras.Input((5,), dtype="bool")
    state = keras.Input((3,))
    outputs = [shared(x, mask=mask), shared(x, mask=mask, initial_state=state)]
    model = keras.Model([x, mask, state], outputs)
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(4, 5, 2)), rng.random((4, 5)) < 0.5, rng.normal(size=(4, 3))]
    opened, _ = normal_form(model)
    for one, two in zip(opened(data), model(data), strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_the_activation_of_a_recurrent_layer_stays_inside_of_its_steps(kind):
    """Also in a TimeDistributed, whose dense layers are split from theirs."""
    inputs = keras.Input((4, 3))
    parts = keras.ops.reshape(inputs, (-1, 2, 2, 3))
    expected, found, kinds = normal(layers.TimeDistributed(getattr(layers, kind)(2))(parts), inputs)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert kinds.count(kind) == 1
    assert "Activation" not in kinds


def first_of_two(x):
    return ops.split(x, 2, axis=-1)[0]  # nothing reads the second


def gated(x):
    one, other = ops.split(x, [3], axis=1)
    return ops.concatenate([other, ops.sigmoid(one)], axis=1)


def between_axes(x):
    one, other = ops.unstack(ops.transpose(ops.reshape(x, (-1, 4, 2, 3)), (2, 0, 1, 3)))
    return ops.maximum(one, other)


@pytest.mark.parametrize("parts", [first_of_two, gated, between_axes])
@pytest.mark.parametrize("mode", ["int8", "int16x8"])
def test_parts_of_a_split_are_slices(parts, mode):
    """The converter left a SPLIT in floats where an output of it is not read."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 5))
    x = parts(layers.Dense(6)(inputs))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    kinds = {call.kind for call in walk(normal_form(model)[0]).calls}
    assert "GetItem" in kinds
    assert not kinds & {"Split", "Unstack"}
    x = np.random.default_rng(0).normal(size=(32, 4, 5)).astype("float32")
    trainable = tfnas.quantize_aware(model, mode, data=x)
    assert tfnas.unquantized_layers(trainable) == []
    file = tfnas.to_tflite(trainable, mode)
    steps = np.abs(file.predict(x, reference=True) - trainable.predict(x, verbose=0))
    # A step of 16 bits is below what floats of 32 bits add up to.
    assert steps.max() <= (3.01 if mode == "int8" else 8) * file.outputs[0].scale


def of_each_picture(inside):
    """Returns a model that looks at each picture of a series, and then at all of them."""
    inputs = keras.Input((3, 6, 6, 1))
    x = layers.Flatten()(layers.TimeDistributed(inside)(inputs))
    return keras.Model(inputs, layers.Dense(2)(x))


def picture_network():
    inputs = keras.Input((6, 6, 1))
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="look")(inputs))
    x = layers.SeparableConv2D(6, 3, name="again", activation="swish")(layers.ReLU()(x))
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x), name="picture")


def test_a_model_at_each_step_is_trained_for_integers(tmp_path):
    """Its wrapper was refused; that of a layer alone was not."""
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((6, 6, 1)), picture_network(), layers.Dense(5)])
    model = of_each_picture(network)
    x = np.random.default_rng(0).normal(size=(32, 3, 6, 6, 1)).astype("float32")
    flat, _ = normal_form(model)
    np.testing.assert_allclose(flat(x), model(x), atol=1e-6)
    trainable = tfnas.quantize_aware(model, data=x)
    assert tfnas.unquantized_layers(trainable) == []
    trainable.compile("adam", "mse")
    trainable.fit(x, np.zeros((32, 2)), verbose=0)
    trainable.save(tmp_path / "aware.keras")
    again = keras.models.load_model(tmp_path / "aware.keras")
    np.testing.assert_array_equal(again(x), trainable(x))
    file = tfnas.to_tflite(trainable)
    assert not [t for op in file.graph.operators for t in op.outputs if t.dtype == "float32"]
    steps = np.abs(file.predict(x, reference=True) - trainable.predict(x, verbose=0))
    assert steps.max() <= 6 * file.outputs[0].scale


@pytest.mark.parametrize(("shift", "axis"), [(1, 1), (-1, -1), ((1, -2), (1, 2)), (4, 1), (9, 1)])
def test_a_roll_is_slices_that_change_places(shift, axis):
    inputs = keras.Input((4, 3))
    expected, found, kinds = normal(ops.roll(inputs, shift, axis) * 2.0, inputs)
    np.testing.assert_array_equal(found, expected)
    assert "Roll" not in kinds


@pytest.mark.parametrize("mode", ["int8", "int16x8"])
def test_rolled_windows_are_trained_for_integers(mode):
    """As in a Swin transformer, which was refused for them."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 5))
    x = layers.Dense(6)(inputs)
    x = layers.Concatenate()([x, ops.roll(x, (1, 2), (1, 2))])
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x + ops.roll(x, -1, 1))))
    x = np.random.default_rng(0).normal(size=(32, 4, 5)).astype("float32")
    trainable = tfnas.quantize_aware(model, mode, data=x)
    assert tfnas.unquantized_layers(trainable) == []
    file = tfnas.to_tflite(trainable, mode)
    assert not [t for op in file.graph.operators for t in op.outputs if t.dtype == "float32"]
    steps = np.abs(file.predict(x, reference=True) - trainable.predict(x, verbose=0))
    assert steps.max() <= (3.01 if mode == "int8" else 8) * file.outputs[0].scale


def test_a_roll_along_an_open_axis_stays():
    inputs = keras.Input((None, 4))
    model = keras.Model(inputs, ops.roll(inputs, 1, axis=1))
    assert [call.kind for call in walk(normal_form(model)[0]).calls] == ["Roll"]


def test_a_split_along_an_open_axis_stays():
    inputs = keras.Input((None, 4))
    model = keras.Model(inputs, list(ops.split(inputs, 2, axis=1)))
    assert [call.kind for call in walk(normal_form(model)[0]).calls] == ["Split"]
