import keras
import numpy as np
import pytest
from small_conversions import X, conversion

from tfnas.tflite.conversion_error import NoCalibration
from tfnas.tflite.passes.read_calibration import as_inputs, read_calibration


def test_one_array_for_each_input():
    (column,) = read_calibration(conversion("int8", calibration=X)).columns
    np.testing.assert_array_equal(column, X)


def test_at_most_500_examples():
    (column,) = read_calibration(conversion("int8", calibration=np.zeros((900, 6)))).columns
    assert column.shape == (500, 6)


@pytest.mark.parametrize("fields", [{"mode": "float32"}, {"mode": "int8", "aware": True}])
def test_data_that_is_not_needed_is_not_read(fields):
    state = conversion(**fields, calibration="not data")
    assert read_calibration(state) is state


def test_missing_data_is_refused():
    with pytest.raises(NoCalibration, match="calibration must hold typical inputs for mode 'int8'"):
        read_calibration(conversion("int8"))


def test_columns_in_the_structure_of_the_inputs():
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    columns = (np.zeros((4, 2)), np.ones((4, 3)))
    model = keras.Model({"a": a, "b": b}, keras.layers.Concatenate()([a, b]))
    found = as_inputs(model, columns)
    assert {name: value.shape for name, value in found.items()} == {"a": (4, 2), "b": (4, 3)}
    found = as_inputs(keras.Model([a, b], keras.layers.Concatenate()([a, b])), columns)
    assert [value.shape for value in found] == [(4, 2), (4, 3)]
