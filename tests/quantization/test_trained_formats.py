"""A quantization-aware model is converted to the formats that it was trained for, unless told."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfnas
from tfnas.cli.app import main
from tfnas.quantization.aware_models import trained_formats
from tfnas.quantization.quantize_aware import quantize_aware_partly

X = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")


def plain() -> keras.Model:
    layers = [keras.Input((6,)), keras.layers.Dense(4, name="a"), keras.layers.Dense(2, name="b")]
    return keras.Sequential(layers, name="plain")


@pytest.mark.parametrize("mode", ["int8", "int8x4", "int16x8"])
def test_the_formats_of_a_trained_model(mode: str) -> None:
    aware = tfnas.quantize_aware(plain(), mode, data=X)
    assert trained_formats(aware) == tfnas.QuantSpec.of(mode)
    assert trained_formats(plain()) is None


def test_a_file_has_the_formats_of_its_model(tmp_path, capsys) -> None:
    aware = tfnas.quantize_aware(plain(), "int16x8", data=X)
    file = tfnas.to_tflite(aware)
    assert file.inputs[0].dtype == "int16"
    assert file.content == tfnas.to_tflite(aware, "int16x8").content
    assert tfnas.to_tflite(aware, "float32").inputs[0].dtype == "float32"
    assert tfnas.to_tflite(plain()).inputs[0].dtype == "float32"
    aware.save(tmp_path / "aware.keras")
    assert main(["export", str(tmp_path / "aware.keras")]) == 0
    assert "'plain' is quantization-aware: --mode=int16x8" in capsys.readouterr().out
    exported = tfnas.Artifact.load(tmp_path / "aware_int16x8.tflite")
    assert exported.content == file.content


def test_calibration_that_is_not_used_is_said(tmp_path, caplog, capsys) -> None:
    aware = tfnas.quantize_aware(plain(), "int8", data=X)
    expected = tfnas.to_tflite(aware).content
    tfnas.to_tflite(plain(), "int8", X)
    tfnas.to_tflite(plain(), "float32", X)  # as in a loop over modes
    assert not caplog.records
    for mode in (None, "int8"):
        assert tfnas.to_tflite(aware, mode, X).content == expected
        assert "the quantization-aware model 'plain' holds the ranges of its" in caplog.text
        caplog.clear()
    assert tfnas.to_tflite(plain(), calibration=X).inputs[0].dtype == "float32"
    assert "without a mode the file of 'plain' is of floats; mode='int8' uses it" in caplog.text
    aware.save(tmp_path / "aware.keras")
    np.savez(tmp_path / "x.npz", x=X)
    command = ["export", str(tmp_path / "aware.keras"), f"--data={tmp_path / 'x.npz'}"]
    assert main(command) == 0
    assert "calibration is not used: the quantization-aware" in capsys.readouterr().err
    assert main([*command, "--errors"]) == 0  # of these data
    assert "calibration" not in capsys.readouterr().err


def test_flags_fit_the_formats_of_the_model(tmp_path, capsys) -> None:
    """Without --mode, what a flag needs is checked against those of the model."""
    tfnas.quantize_aware(plain(), "int8", data=X).save(tmp_path / "aware.keras")
    np.savez(tmp_path / "x.npz", x=X)
    command = ["export", str(tmp_path / "aware.keras"), "--errors"]
    assert main([*command, f"--data={tmp_path / 'x.npz'}"]) == 0
    assert (tmp_path / "aware_int8.errors.json").exists()
    assert main([*command, "--size=0.5"]) == 2
    assert "only there, got 0.5 for 'int8'" in capsys.readouterr().err
    plain().save(tmp_path / "aware.keras")
    assert main(command) == 2
    assert "errors needs a mode that quantizes, got 'float32'" in capsys.readouterr().err


def test_a_recipe_begins_with_floats(tmp_path) -> None:
    pytest.importorskip("ai_edge_quantizer")
    tfnas.quantize_aware(plain(), "int8", data=X).save(tmp_path / "aware.keras")
    command = ["export", str(tmp_path / "aware.keras"), "--recipe=dynamic_wi8_afp32"]
    assert main([*command, f"--output={tmp_path / 'file.tflite'}"]) == 0
    assert tfnas.Artifact.load(tmp_path / "file.tflite").inputs[0].dtype == "float32"


def test_an_error_says_where_the_formats_come_from() -> None:
    aware = tfnas.quantize_aware(plain(), "int8", data=X)
    inputs = keras.Input((6,), name="x")
    around = keras.Model(inputs, keras.layers.Dense(3, name="behind")(aware(inputs)))
    hint = r"\(mode is 'int8', what the model was trained for; mode='float32' writes"
    with pytest.raises(tfnas.ConversionError, match=hint):
        tfnas.to_tflite(around)
    with pytest.raises(ValueError, match=hint):
        tfnas.to_tflite(aware, sparse=True)
    with pytest.raises(ValueError, match=r"got True$"):
        tfnas.to_tflite(aware, "int8", sparse=True)


@pytest.mark.parametrize("given", ["float32", "int4"])
def test_formats_of_layers_are_those_of_the_training(given: str) -> None:
    own = tfnas.QuantSpec("int8", layers={"b": given})
    aware, other = (tfnas.quantize_aware(plain(), spec, data=X) for spec in (own, "int8"))
    assert tfnas.to_tflite(aware, own).content == tfnas.to_tflite(aware, "int8").content
    rule = f"layers must agree with the training of 'plain', got '{given}' for 'b'"
    with pytest.raises(ValueError, match=rule):
        tfnas.to_tflite(other, own)
    with pytest.raises(ValueError, match=f"got '{given}' for 'a', which was trained with 'int8'"):
        tfnas.to_tflite(aware, tfnas.QuantSpec("int8", layers={"a": given}))


def test_layers_of_nested_models_may_have_one_name() -> None:
    def part(name: str) -> keras.Model:
        layers = [keras.Input((6,)), keras.layers.Dense(6, name="dense")]
        return keras.Sequential(layers, name=name)

    head = keras.layers.Dense(2, name="dense")
    model = keras.Sequential([keras.Input((6,)), part("one"), part("two"), head])
    own = tfnas.QuantSpec("int8", layers={"two/dense": "float32", "one/*": "int4"})
    aware = tfnas.quantize_aware(model, own, data=X)
    assert tfnas.to_tflite(aware, own).content == tfnas.to_tflite(aware, "int8").content


def mixed() -> keras.Model:
    x = keras.Input((6, 4), name="x")
    h = keras.layers.SeparableConv1D(4, 3, padding="same", name="apart")(x)
    h = keras.layers.Dense(4, "gelu", name="bent")(h)
    h = keras.layers.MultiHeadAttention(2, 2, name="look")(h, h)
    return keras.Model(x, keras.layers.Dense(2, name="last")(h), name="mixed")


IN_PARTS = {"apart_pointwise": "float32", "gelu": "float32", "Softmax": "float32"}
SEQUENCES = np.random.default_rng(0).normal(size=(20, 6, 4)).astype("float32")


def test_the_model_keeps_what_it_was_trained_for(tmp_path) -> None:
    """Of parts of layers and functions too, through a file and a clone."""
    own = tfnas.QuantSpec("int8", layers=IN_PARTS)
    aware = tfnas.quantize_aware(mixed(), own, data=SEQUENCES)
    aware.save(tmp_path / "aware.keras")
    clone = keras.models.clone_model(aware)
    clone.set_weights(aware.get_weights())
    content = tfnas.to_tflite(aware, own).content
    for model in (tfnas.load_model(tmp_path / "aware.keras"), clone):
        assert tfnas.to_tflite(model, own).content == content
        with pytest.raises(ValueError, match="got 'int8' for 'apart', which was trained with 'fl"):
            tfnas.to_tflite(model, tfnas.QuantSpec("int8", layers={"apart_pointwise": "int8"}))


@pytest.mark.parametrize(
    ("layers", "rule"),
    [
        ({"gelu": "float32"}, "got 'float32' for 'bent_gelu', which was trained with 'int8'"),
        ({"look": "float32"}, "got 'float32' for 'look', which was trained with 'int8'"),
        ({"Softmax": "float32"}, "got 'float32' for 'look_.*softmax'"),
        ({"apart": "int4"}, "got 'int4' for 'apart', which was trained with 'int8'"),
        ({"apart_pointwise": "int4"}, "got 'int4' for 'apart', which was trained with 'int8'"),
        ({"lost": "float32"}, "got 'lost', which matches none of .*; did you mean 'last'?"),
    ],
)
def test_other_formats_than_the_trained_ones_are_refused(layers: dict, rule: str) -> None:
    aware = tfnas.quantize_aware(mixed(), "int8", data=SEQUENCES)
    with pytest.raises(ValueError, match=rule):
        tfnas.to_tflite(aware, tfnas.QuantSpec("int8", layers=layers))
    assert tfnas.to_tflite(aware, tfnas.QuantSpec("int8", layers={"Dense": "int8"})).mode == "int8"


def test_a_layer_that_stays_float_anyway_may_be_named() -> None:
    x = keras.Input((8, 6))
    h = keras.layers.UnitNormalization(axis=1, name="unit")(x)
    model = keras.Model(x, keras.layers.Dense(2)(h))
    data = np.random.default_rng(0).normal(size=(20, 8, 6)).astype("float32")
    aware = quantize_aware_partly(model, "int8", data=data)
    named = tfnas.QuantSpec("int8", layers={"unit": "float32"})
    assert tfnas.to_tflite(aware, named).content == tfnas.to_tflite(aware, "int8").content


def test_a_part_of_a_trained_model_has_the_formats_that_it_has() -> None:
    aware = tfnas.quantize_aware(plain(), "int8", data=X)
    inputs = output = keras.Input((4,))
    for layer in aware.layers[-3:]:  # without the range that has the record
        output = layer(output)
    part = keras.Model(inputs, output)
    assert tfnas.to_tflite(part, tfnas.QuantSpec("int8", layers={"b": "int8"})).mode == "int8"
    with pytest.raises(ValueError, match="got 'int4' for 'b', which was trained with 'int8'"):
        tfnas.to_tflite(part, tfnas.QuantSpec("int8", layers={"b": "int4"}))


def test_bits_of_states_are_those_of_the_training() -> None:
    model = keras.Sequential([keras.Input((6, 4)), keras.layers.GRU(3)], name="steps")
    aware = tfnas.quantize_aware(model, tfnas.QuantSpec("int8", state_bits=16), data=SEQUENCES)
    with pytest.raises(ValueError, match="state_bits must be 16 as model 'steps' was trained for"):
        tfnas.to_tflite(aware, tfnas.QuantSpec("int8", state_bits=8))
