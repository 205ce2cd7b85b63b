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
