"""Calibration data in TFLite's own form: a function that yields examples."""

import doctest
import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from slow_cases import slow_but

import tfnas
from tfnas.data import representative_dataset as module
from tfnas.data.representative_dataset import is_representative_dataset, representative_arrays


def two_inputs():
    keras.utils.set_random_seed(0)
    zebra, apple = keras.Input((4,), name="zebra"), keras.Input((3,), name="apple")
    joined = layers.Concatenate()([layers.Dense(8, "relu")(zebra), layers.Dense(5)(apple)])
    return keras.Model([zebra, apple], layers.Dense(2)(joined))


@pytest.fixture(scope="module")
def model():
    return two_inputs()


@pytest.fixture(scope="module")
def columns():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(60, n)).astype(np.float32) for n in (4, 3)]


def as_lists(columns, batch=1):
    zebra, apple = columns

    def examples():
        for i in range(0, len(zebra), batch):
            yield [zebra[i : i + batch], apple[i : i + batch]]

    return examples


def as_dictionaries(columns):
    zebra, apple = columns

    def examples():
        for i in range(len(zebra)):
            yield {"apple": tf.constant(apple[i : i + 1]), "zebra": zebra[i : i + 1]}

    return examples


def as_signatures(columns, key="serving_default"):
    return lambda: ((key, item) for item in as_dictionaries(columns)())


FORMS = {
    "signatures": as_signatures,
    "signatures without a key": lambda columns: as_signatures(columns, None),
    "lists": as_lists,
    "lists in batches": lambda columns: as_lists(columns, 7),
    "dictionaries": as_dictionaries,
    "TensorFlow's class": lambda columns: tf.lite.RepresentativeDataset(as_lists(columns)),
}


@pytest.fixture(scope="module")
def of_arrays(model, columns):
    """Mode -> the file that is calibrated by the arrays themselves."""
    return functools.cache(lambda mode: tfnas.to_tflite(model, mode, columns))


@pytest.mark.parametrize(
    ("form", "mode"),
    [
        *((form, "int8") for form in FORMS),
        ("lists in batches", "int8x4"),
        *(
            pytest.param(form, "int8x4", marks=pytest.mark.slow)
            for form in FORMS
            if form != "lists in batches"
        ),
    ],
)
def test_the_file_is_that_of_the_same_arrays(model, columns, of_arrays, form, mode):
    file = tfnas.to_tflite(model, mode, FORMS[form](columns))
    assert file.content == of_arrays(mode).content
    assert file.origin["calibration_examples"] == 60


@pytest.fixture(scope="module")
def float_file(model):
    return tfnas.to_tflite(model)


@pytest.fixture(scope="module")
def recipe_of_arrays(float_file, columns):
    return tfnas.apply_recipe(float_file, "static_wi8_ai8", columns)


@pytest.fixture(scope="module")
def aware_of_arrays(model, columns):
    return tfnas.quantize_aware(model, data=columns)


@pytest.mark.parametrize("form", slow_but([*FORMS], *[*FORMS][:2]))
def test_a_recipe_and_quantize_aware_take_it_too(
    model, columns, form, float_file, recipe_of_arrays, aware_of_arrays
):
    found = tfnas.apply_recipe(float_file, "static_wi8_ai8", FORMS[form](columns))
    assert found.content == recipe_of_arrays.content
    found = tfnas.quantize_aware(model, data=FORMS[form](columns))
    for a, b in zip(found.get_weights(), aware_of_arrays.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_mixed_precision_takes_it_too(model, columns):
    found, _ = tfnas.mixed_precision(model, 4000, as_lists(columns), activations="int8")
    expected, _ = tfnas.mixed_precision(model, 4000, columns, activations="int8")
    assert found.content == expected.content


def endless(columns):
    return lambda: itertools.cycle(as_lists(columns)())


def test_of_an_endless_one_the_first_500_examples_calibrate(model, columns):
    file = tfnas.to_tflite(model, "int8", endless(columns))
    assert file.origin["calibration_examples"] == 500
    file = tfnas.to_tflite(model, "int8", lambda: itertools.cycle(as_lists(columns, 7)()))
    assert file.origin["calibration_examples"] == 500


def test_an_endless_one_is_refused_where_all_examples_are_read(model, columns):
    with pytest.raises(ValueError, match="data must end after at most 500 examples where it is a"):
        tfnas.quantize_aware(model, data=endless(columns))


ROWS = [np.zeros((1, 4)), np.zeros((1, 3))]
REFUSED = {
    "empty": (lambda: iter(()), "must hold at least one example, got none"),
    "no iterator": (lambda: None, "must be a function without arguments that returns an iterator"),
    "an argument": (lambda x: x, "must be a function without arguments that returns an iterator"),
    "bare arrays": (lambda: iter(ROWS), "must yield lists or dictionaries of arrays, got ndarray"),
    "tuples": (lambda: [tuple(ROWS)], "must yield lists or dictionaries of arrays, got tuple"),
    "tuples of two dictionaries": (
        lambda: [({}, {"zebra": ROWS[0], "apple": ROWS[1]})],
        "must yield lists or dictionaries of arrays, got tuple",
    ),
    "two signatures": (
        lambda: [(key, {"zebra": ROWS[0], "apple": ROWS[1]}) for key in "ab"],
        r"must yield examples of one signature, got \['a', 'b'\]",
    ),
    "an empty list": (lambda: [[]], "must yield lists or dictionaries of arrays, got list"),
    "no batch": (lambda: [[np.float32(1), ROWS[1]]], "must yield arrays of equal batch size"),
    "empty batches": (
        lambda: itertools.repeat([x[:0] for x in ROWS]),
        r"must yield arrays of equal batch size, at least 1, got the shapes \[\(0, 4\), \(0, 3\)\]",
    ),
    "two batch sizes": (
        lambda: [[np.zeros((2, 4)), ROWS[1]]],
        r"must yield arrays of equal batch size, at least 1, got the shapes \[\(2, 4\), \(1, 3\)\]",
    ),
    "other inputs later": (lambda: [ROWS, ROWS[:1]], "must yield the same inputs each time"),
    "other shapes later": (
        lambda: [ROWS, [np.zeros((1, 5)), ROWS[1]]],
        "must yield arrays of one shape for input 0",
    ),
    "one input": (lambda: [ROWS[:1]], "must hold 2 inputs, got 1"),
    "another name": (
        lambda: [{"zebra": ROWS[0], "b": ROWS[1]}],
        r"must hold the inputs \['zebra', 'apple'\], got \['b', 'zebra'\]",
    ),
    "wrong order": (lambda: [ROWS[::-1]], r"must have the shape \(examples, 4\) for input 'zebra'"),
    "NaN": (lambda: [[np.nan * x for x in ROWS]], "must be finite for input 'zebra'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_function_that_is_refused(model, case):
    calibration, match = REFUSED[case]
    with pytest.raises(ValueError, match=f"^calibration {match}"):
        tfnas.to_tflite(model, "int8", calibration)


def two_of_a_kind():
    """Two inputs of one shape, whose order only the model tells: b - a."""
    b, a = keras.Input((4,), name="b"), keras.Input((4,), name="a")
    return keras.Model([b, a], layers.Subtract()([b, a]))


def test_lists_are_in_the_order_of_the_inputs_of_the_keras_model():
    small = np.linspace(-1, 1, 40, dtype=np.float32).reshape(10, 4)
    large = 100 * small

    def examples():
        for i in range(10):
            yield [large[i : i + 1], small[i : i + 1]]

    file = tfnas.to_tflite(two_of_a_kind(), "int8", examples)
    scales = {tensor.name: tensor.scale for tensor in file.inputs}
    assert scales["b"] == pytest.approx(100 * scales["a"], rel=1e-3)


def defect(*_):
    raise TypeError("of the user")


class Examples:
    """An object that can be called, with an optional argument."""

    def __call__(self, seed=0):
        return [[np.full((1, 2), seed)]]


def test_errors_of_the_function_itself_are_not_changed():
    with pytest.raises(TypeError, match=r"^of the user$"):
        representative_arrays(defect)
    with pytest.raises(TypeError, match=r"^of the user$"):
        representative_arrays(lambda: map(defect, [1]))


@pytest.mark.parametrize(
    ("function", "reason"),
    [(lambda x: x, "missing a required argument: 'x'"), (lambda: 3, "which returned int")],
)
def test_the_reason_why_a_function_is_refused(function, reason):
    with pytest.raises(ValueError, match=f"without arguments that returns an iterator.*{reason}"):
        representative_arrays(function)


def test_every_function_that_needs_no_argument_is_taken():
    for function in (Examples(), lambda *rows: iter([[np.zeros((1, 2))]])):
        [array] = representative_arrays(function)
        np.testing.assert_array_equal(array, [[0, 0]])


def test_only_functions_have_this_form(columns):
    for data in (columns, columns[0], {"a": columns[0]}, tf.data.Dataset.range(3), "digits", None):
        assert not is_representative_dataset(data)


def test_reading_stops_at_the_limit():
    read = []

    def examples():
        for i in range(10):
            read.append(i)
            yield [np.full((2, 3), i)]

    [array] = representative_arrays(examples, 5)
    assert array[:, 0].tolist() == [0, 0, 1, 1, 2]
    assert read == [0, 1, 2]


def test_the_example_is_true():
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
