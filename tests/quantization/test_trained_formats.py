"""A quantization-aware model is converted to the formats that it was trained for, unless told."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfnas
from tfnas.cli.app import main
from tfnas.quantization.aware_models import trained_formats

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
