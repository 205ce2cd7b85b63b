import keras
import numpy as np
import pytest
from small_conversions import conversion, float_file, quantized

import tfnas
from tfnas.quantization.spec import QuantSpec
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.passes.validate_file import check_formats, validate


def test_a_good_file_becomes_an_artifact():
    origin = {"model": "small"}
    validated = validate(conversion(content=float_file().content, origin=origin))
    assert validated.file == float_file()
    assert (validated.file.mode, validated.file.origin) == ("float32", origin)


def test_a_file_for_a_recipe_must_be_float32():
    assert validate(conversion("weights4", content=float_file().content)).file.mode == "float32"


def test_a_corrupt_file_is_refused():
    with pytest.raises(ValueError, match=r"content must be a \.tflite file"):
        validate(conversion(content=b"not a file at all"))


def test_floats_in_an_integer_file_are_refused():
    with pytest.raises(
        ConversionError, match="must hold no float tensor in mode 'int8', got float32"
    ):
        validate(conversion("int8", content=float_file().content))


def test_layers_that_stay_float_may_hold_floats():
    partly = quantized(QuantSpec(layers={"last": "float32"}))
    with pytest.raises(ConversionError, match="inputs of the file must be int8, got float32"):
        validate(conversion("int8", partly, aware=True, content=float_file().content))


def test_integer_ends_of_a_float_file_are_refused():
    with pytest.raises(ConversionError, match="inputs of the file must be float32, got int8"):
        check_formats(tfnas.to_tflite(quantized(), "int8"), QuantSpec.of("float32"))


def test_a_file_that_the_interpreter_refuses(monkeypatch):
    def refuse(self):
        raise RuntimeError("failed to prepare\nnode 3")

    monkeypatch.setattr(Artifact, "interpreter", refuse)
    match = "file of mode 'float32' was written, but the interpreter refuses it: failed to prepare$"
    with pytest.raises(ConversionError, match=match):
        validate(conversion(content=float_file().content))


def test_a_file_that_a_kernel_refuses_when_it_runs_is_an_error():
    inputs = keras.Input((5, 6))
    spread = keras.ops.var(keras.layers.Dense(4)(inputs), axis=1)
    model = keras.Model(inputs, keras.layers.Dense(2)(spread))
    x = np.random.default_rng(0).normal(size=(20, 5, 6))
    message = r"LiteRT can't run it: SquaredDifference .* \(layer 'reduce_variance'\)"
    with pytest.raises(ConversionError, match=message):
        tfnas.to_tflite(model, "int16x8", x)
