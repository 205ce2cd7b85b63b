"""Integer files that are larger than other modes' files say so."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.quantization.spec import QuantSpec
from tfnas.tflite import convert
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.size_comparison import with_comparison

X = np.random.default_rng(0).normal(size=(20, 96)).astype("float32")


@pytest.fixture(scope="module")
def model():
    return keras.Sequential([keras.Input((96,)), layers.Dense(256), layers.Dense(8)], name="net")


def test_a_file_with_float_weights_says_what_it_is_larger_than(model, caplog, monkeypatch):
    monkeypatch.setattr(convert, "with_comparison", with_comparison)
    file = tfnas.to_tflite(model, QuantSpec("int8", layers={"Dense": "float32"}), X)
    larger_than = file.origin["larger_than"]
    assert larger_than["dynamic"] == tfnas.to_tflite(model, "dynamic").size < file.size
    assert f"more than the {larger_than['dynamic']:,} of mode 'dynamic'" in caplog.text


@dataclasses.dataclass(frozen=True)
class File:
    """What is read of an artifact."""

    size: int
    origin: dict = dataclasses.field(default_factory=dict)

    def minified(self):
        return self


def test_a_clearly_small_file_costs_no_other_conversion(model):
    def convert(mode):
        raise AssertionError(mode)

    for file, spec in ((File(30_000), "int8"), (File(99_000), "float32")):
        assert with_comparison(file, model, QuantSpec.of(spec), convert) is file
    small = File(16_000)
    assert with_comparison(small, model, QuantSpec.of("int8"), convert) is small


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"dynamic": 30_000, "float32": 120_000}, {"dynamic": 30_000}),
        ({"dynamic": 30_000, "float32": 99_000}, {"dynamic": 30_000, "float32": 99_000}),
        ({"dynamic": 100_000, "float32": 120_000}, None),
        ({"float32": 99_000}, {"float32": 99_000}),
    ],
)
def test_both_modes_are_compared(model, sizes, expected):
    def convert(mode):
        if mode not in sizes:
            raise ConversionError("no such file")
        return File(sizes[mode])

    found = with_comparison(File(100_000), model, QuantSpec.of("int8"), convert)
    assert found.origin.get("larger_than") == expected
