"""The record, and the row that it goes through."""

import keras
import numpy as np
import pytest
from small_conversions import X, conversion, float_file, network

import tfnas
from tfnas.quantization.spec import MODES, QuantSpec
from tfnas.tflite import convert


@pytest.mark.parametrize("mode", MODES)
def test_modes_that_a_recipe_or_fake_quantization_makes(mode):
    state = conversion(mode)
    assert state.uses_recipe == (mode in ("int4", "weights8", "weights4"))
    assert state.needs_fake_quantization == (mode == "int8x4")
    assert state.converter_spec.mode == ("float32" if state.uses_recipe else mode)


@pytest.mark.parametrize(
    "spec",
    [
        QuantSpec(layers={"first": "float32"}),
        QuantSpec(correct=True),
        QuantSpec(ranges="percentile"),
    ],
)
def test_specifications_that_need_fake_quantization(spec):
    assert conversion(spec).needs_fake_quantization
    assert not conversion(spec, aware=True).needs_fake_quantization
    assert not conversion(spec).uses_recipe


@pytest.mark.parametrize("function", ["celu", "softplus"])
def test_functions_of_exponentials_are_tables_after_training_too(function):
    """In parts, as the converter computes it, a CELU was off by 0.7 of its outputs."""
    keras.utils.set_random_seed(0)
    own = [keras.layers.Dense(16, activation=function), keras.layers.Dense(4)]
    model = keras.Sequential([keras.Input((6,)), *own])
    assert conversion("int8", model).needs_fake_quantization
    assert not conversion("int16x8", model).needs_fake_quantization
    file = tfnas.to_tflite(model, "int8", 3 * X)
    assert "EXP" not in {op.name for op in file.graph.operators}
    expected = model.predict(3 * X, verbose=0)
    error = np.square(file.predict(3 * X) - expected).mean() / np.square(expected).mean()
    assert error < 0.05**2


def test_layers_with_float_activations_need_a_recipe():
    spec = QuantSpec(activations="float32", layers={"first": "float32"})
    assert conversion(spec).uses_recipe
    assert not conversion(spec).needs_fake_quantization


def test_the_file_is_there_once_it_is_validated():
    with pytest.raises(RuntimeError, match="conversion of 'small' must have a file, got none yet"):
        _ = conversion().file
    assert conversion(artifact=float_file()).file is float_file()


@pytest.mark.parametrize("mode", ["float32", "int8", "int8x4", "weights8"])
def test_every_conversion_enters_each_pass_once(monkeypatch, mode):
    entered = []

    def recorded(run):
        def enter(state):
            entered.append(run.__name__)
            return run(state)

        return enter

    monkeypatch.setattr(convert, "PASSES", [recorded(run) for run in convert.PASSES])
    assert tfnas.to_tflite(network(), mode, X).mode == mode
    assert entered == [
        "keep_preprocessing_out",
        "prepare",
        "check_weights",
        "read_calibration",
        "place_fake_quantization",
        "correct",
        "check_fake_quantization",
        "keep_one_frame",
        "fix_batch",
        "convert",
        "write_integer_loops",
        "write_states",
        "repair_file",
        "share_vectors",
        "validate",
        "quantize_weights",
        "encode_sparsely",
    ]
