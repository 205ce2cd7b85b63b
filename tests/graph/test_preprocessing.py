"""Preprocessing in front of a model stays out of its file."""

import logging

import keras
import numpy as np
import pytest
from keras import layers
from model_kinds import table, table_with_preprocessing

import tfnas


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return table_with_preprocessing()


@pytest.fixture(scope="module")
def rows():
    return table()[0]


def test_a_model_without_lookups_is_returned_itself():
    model = keras.Sequential([keras.Input((4,)), layers.Rescaling(2.0), layers.Dense(2)])
    assert tfnas.split_preprocessing(model) == (None, model)


def test_the_parts_compute_what_the_model_does(model, rows):
    front, rest = tfnas.split_preprocessing(model)
    np.testing.assert_allclose(rest(front(rows)), model(rows), atol=1e-6)
    kinds = {type(layer).__name__ for layer in rest.layers}
    assert "Normalization" in kinds
    assert not kinds & {"StringLookup", "IntegerLookup"}
    assert {each.name: each.dtype for each in rest.inputs} == {
        "age": "float32",
        "city_index": "int32",
        "codes": "float32",
    }


@pytest.mark.parametrize("mode", ["float32", "int8"])
def test_the_rest_converts_and_the_file_says_what_is_left_out(model, rows, mode, caplog):
    with caplog.at_level(logging.WARNING, "tfnas"):
        file = tfnas.to_tflite(model, mode, None if mode == "float32" else rows)
    assert "city_index" in caplog.text
    assert "stay out of the file, which takes" in caplog.text
    assert "city_index" in file.origin["kept_out"]
    front, _ = tfnas.split_preprocessing(model)
    x = {name: np.asarray(values) for name, values in front(rows).items()}
    expected = model(rows, training=False)
    bound = 1e-5 if mode == "float32" else 0.1
    np.testing.assert_allclose(file.predict(x, reference=True), expected, atol=bound)


def test_preprocessing_of_text_is_a_model_of_its_own():
    words = layers.TextVectorization(output_sequence_length=4, vocabulary=["good", "bad"])
    own = [words, layers.Embedding(4, 8), layers.GlobalAveragePooling1D(), layers.Dense(2)]
    model = keras.Sequential([keras.Input((1,), dtype="string"), *own])
    file = tfnas.to_tflite(model)
    front, _ = tfnas.split_preprocessing(model)
    texts = np.array([["good good"], ["bad"]], object)
    ids = np.asarray(front(texts))
    assert ids.shape == (2, 4)
    np.testing.assert_allclose(file.predict(ids), model(texts), atol=1e-5)


@pytest.mark.parametrize("mode", ["multi_hot", "count"])
def test_counted_categories_stay_out_of_the_file(mode, caplog):
    days, age = keras.Input((2,), dtype="int32", name="days"), keras.Input((1,), name="age")
    counted = layers.CategoryEncoding(7, output_mode=mode, name="of_days")(days)
    outputs = layers.Dense(2)(layers.Concatenate()([counted, age]))
    model = keras.Model({"days": days, "age": age}, outputs)
    x = {"days": np.array([[1, 6], [3, 3], [0, 1]]), "age": np.ones((3, 1), "float32")}
    file = tfnas.to_tflite(model)
    assert file.origin["kept_out"] == ["of_days"]
    assert "of_days stay out of the file" in caplog.text
    front, _ = tfnas.split_preprocessing(model)
    found = file.predict({name: np.asarray(values) for name, values in front(x).items()})
    np.testing.assert_allclose(found, model(x), atol=1e-6)


def test_one_hot_categories_are_in_the_file():
    one_hot = layers.CategoryEncoding(7, output_mode="one_hot")
    inputs = keras.Input((1,), dtype="int32")
    model = keras.Model(inputs, layers.Dense(2)(one_hot(inputs)))
    x = np.arange(7, dtype="int32")[:, None]
    file = tfnas.to_tflite(model)
    assert "kept_out" not in file.origin
    np.testing.assert_allclose(file.predict(x), model(x), atol=1e-6)


@pytest.fixture(scope="module")
def wide_and_deep():
    keras.utils.set_random_seed(0)
    day = keras.Input((1,), dtype="int32", name="day")
    age = keras.Input((1,), name="age")
    days = layers.CategoryEncoding(7, output_mode="one_hot", name="one_hot")(day)
    deep = layers.Dense(8, activation="relu")(layers.Concatenate()([age, days]))
    outputs = layers.Dense(1)(layers.Concatenate()([days, deep]))
    model = keras.Model({"day": day, "age": age}, outputs)
    x = {"day": np.arange(-1, 8)[:, None], "age": np.linspace(-1, 1, 9)[:, None]}
    return model, {name: each.astype(model.input[name].dtype) for name, each in x.items()}


@pytest.mark.parametrize("mode", ["int8", "int16x8"])
def test_one_hot_categories_have_an_integer_form(wide_and_deep, mode):
    model, x = wide_and_deep
    file = tfnas.to_tflite(model, mode, x)
    assert "unquantized_layers" not in file.origin
    types = {tensor.dtype for op in file.graph.operators for tensor in op.outputs}
    assert not any(dtype.startswith("float") for dtype in types)
    bound = 8 * file.outputs[0].scale if mode == "int8" else 0.02  # weights of 8 bits
    np.testing.assert_allclose(file.predict(x, reference=True), model(x), atol=bound)


def test_one_hot_categories_are_trained_as_their_file_computes(wide_and_deep):
    model, x = wide_and_deep
    trainable = tfnas.quantize_aware(model, data=x)
    assert tfnas.unquantized_layers(trainable) == []
    file = tfnas.to_tflite(trainable, "int8")
    steps = np.abs(file.predict(x, reference=True) - trainable(x)) / file.outputs[0].scale
    assert np.median(steps) <= 1.001
    assert np.max(steps) <= 3.001
    kept = tfnas.strip_quantization(trainable).get_layer("one_hot")
    assert type(kept) is layers.CategoryEncoding


def test_bins_behind_trained_layers_are_refused():
    bins = layers.Discretization(bin_boundaries=[0.0])
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="first"), bins])
    with pytest.raises(ValueError, match="preprocessing in front of what is trained, got 'first'"):
        tfnas.split_preprocessing(model)


def test_strings_go_through_quantization_aware_training(model, rows):
    trainable = tfnas.quantize_aware(model, data=rows)
    assert "city_index" in tfnas.to_tflite(trainable, "int8").origin["kept_out"]
    texts = {name: np.asarray(values).astype(str) for name, values in rows.items()}
    with pytest.raises(ValueError, match=r"data must hold numbers for input '.*', got <U"):
        tfnas.quantize_aware(model, data=texts)


def test_a_number_that_bins_and_others_read_is_rounded_for_the_others_alone():
    keras.utils.set_random_seed(0)
    age = keras.Input((1,), name="age")
    bins = layers.Embedding(4, 4)(layers.Discretization([20.0, 40.0, 60.0], name="bins")(age))
    both = layers.Concatenate()([layers.Dense(4)(age), layers.Flatten()(bins)])
    model = keras.Model(age, layers.Dense(2)(both))
    x = np.linspace(0, 80, 41, dtype="float32")[:, None]
    trainable = tfnas.quantize_aware(model, data=x)
    front, _ = tfnas.split_preprocessing(trainable)
    before = np.asarray(front(x)["bins"])
    np.testing.assert_array_equal(before, model.get_layer("bins")(x))
    file = tfnas.to_tflite(trainable, "int8")
    assert {tensor.name: tensor.dtype for tensor in file.inputs} == {"age": "int8", "bins": "int32"}
    steps = np.abs(file.predict({"age": x, "bins": before}, reference=True) - trainable(x))
    assert np.median(steps) <= 1.001 * file.outputs[0].scale


def test_words_calibrate_and_are_compared_behind_the_preprocessing(model, rows):
    trainable = tfnas.quantize_aware(model, data=rows)
    np.testing.assert_allclose(trainable(rows), model(rows), atol=0.05)
    file = tfnas.to_tflite(model, "weights8")
    found = tfnas.quantization_error(model, file, rows, keep_float=[])
    assert found.outputs[0].sqnr > 30
    assert {layer.layer for layer in found.layers}
