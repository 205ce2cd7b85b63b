"""What quantization-aware models were made for, where they are parts of others, cut or older."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfnas
from tfnas.quantization.aware_models import fake_quants
from tfnas.quantization.float_islands import BY_SPECIFICATION
from tfnas.quantization.quantize_aware import quantize_aware_partly
from tfnas.quantization.trained_layers import check_trained_layers

X = np.random.default_rng(0).normal(size=(20, 6)).astype("float32")
STEPS = np.random.default_rng(0).normal(size=(20, 6, 4)).astype("float32")


def dense(model: str, *names: str) -> keras.Model:
    layers = [keras.layers.Dense(6, name=name) for name in names]
    return keras.Sequential([keras.Input((6,)), *layers], name=model)


def within(aware: keras.Model, *others: keras.Model) -> keras.Model:
    inputs = keras.Input(aware.input_shape[1:])
    output = aware(inputs)
    for other in others:
        output = other(output)
    return keras.Model(inputs, output, name="outer")


def looking(layers: dict[str, str]) -> keras.Model:
    """A quantization-aware model with attention."""
    x = keras.Input((6, 4))
    h = keras.layers.MultiHeadAttention(1, 2, name="look")(x, x)
    model = keras.Model(x, keras.layers.Dense(4, name="d")(h), name="inner")
    return tfnas.quantize_aware(model, tfnas.QuantSpec("int8", layers=layers), data=STEPS)


def of_an_earlier_release(model: keras.Model) -> keras.Model:
    """The model as releases before this wrote it, without a record of its training."""
    for layer in fake_quants(model):
        layer.trained_layers = None
    return model


def check(model: keras.Model, layers: dict[str, str]) -> None:
    spec = tfnas.QuantSpec("int8", layers=layers)
    check_trained_layers(model, spec, tfnas.unquantized_layers(model))


def test_parts_that_were_trained_apart_keep_formats_of_their_own() -> None:
    own = tfnas.QuantSpec("int8", layers={"a": "float32", "d": "int4"})
    parts = dense("one", "a", "d"), dense("two", "c", "d")
    formats = {"a": "float32", "d": "int4"}, {"d": "int8"}
    aware = [
        tfnas.quantize_aware(part, tfnas.QuantSpec("int8", layers=layers), data=X)
        for part, layers in zip(parts, formats, strict=True)
    ]
    model = within(*aware)
    named = tfnas.QuantSpec("int8", layers={"one/d": "int4", "two/*": "int8", "a": "float32"})
    assert tfnas.to_tflite(model, named).content == tfnas.to_tflite(model, "int8").content
    with pytest.raises(ValueError, match="got 'int4' for 'two/d', which was trained with 'int8'"):
        check(model, dict(own.layers))
    with pytest.raises(ValueError, match="got 'float32' for 'two/c', which was trained with 'int8"):
        check(model, {"two/c": "float32"})
    with pytest.raises(ValueError, match=r"got 'two/a', which matches none of one/a, .*two/d"):
        check(model, {"two/a": "float32"})


def test_a_name_that_a_part_knows_is_not_the_name_of_the_part() -> None:
    """A specification for the part alone says the same of it inside of another model."""
    own = {"o*": "int4"}
    spec = tfnas.QuantSpec("int8", layers=own)
    model = within(tfnas.quantize_aware(dense("one", "oh", "d"), spec, data=X))
    check(model, own)
    with pytest.raises(ValueError, match="got 'int4' for 'one/d', which was trained with 'int8'"):
        check(model, {"one/*": "int4"})


def test_a_nested_model_keeps_the_reasons_of_what_is_float() -> None:
    model = within(looking({"look": "float32"}))
    (left,) = tfnas.unquantized_layers(model)
    assert (left.name, left.reason) == ("inner/look", BY_SPECIFICATION)
    for name in ("look", "inner/look", "MultiHeadAttention"):
        check(model, {name: "float32"})


def test_parts_in_mixed_precision_have_their_names_still() -> None:
    half = keras.layers.Dense(6, name="a", dtype="mixed_float16")
    layers = [keras.Input((6,)), half, keras.layers.Dense(2, name="b")]
    part = keras.Sequential(layers, name="mixed")
    spec = tfnas.QuantSpec("int8", layers={"b": "float32"})
    model = within(tfnas.quantize_aware(part, spec, data=X))
    named = tfnas.QuantSpec("int8", layers={"mixed/b": "float32", "a": "int8"})
    file = tfnas.to_tflite(model, named)
    assert file.origin["unquantized_layers"] == {"b": BY_SPECIFICATION}


def test_what_stays_float_anyway_may_be_named_in_nested_models() -> None:
    x = keras.Input((8, 6))
    h = keras.layers.UnitNormalization(axis=1, name="unit")(x)
    part = keras.Model(x, h, name="part")
    model = keras.Model(x, keras.layers.Dense(2, name="d")(part(x)), name="inner")
    aware = quantize_aware_partly(model, "int8", warn=False)
    for each in (aware, within(aware)):
        for name in ("unit", "part/unit", "UnitNormalization"):
            check(each, {name: "float32"})
    check(within(aware), {"inner/unit": "float32", "inner/d": "int8"})


def test_a_model_of_an_earlier_release_is_what_its_layers_prove(caplog) -> None:
    aware = of_an_earlier_release(looking({"look": "float32"}))
    for model, path in ((aware, ""), (within(aware), "inner/")):
        (left,) = tfnas.unquantized_layers(model)
        assert (left.name, left.reason) == (f"{path}look", BY_SPECIFICATION)
        check(model, {"look": "float32", f"{path}d": "int8", "*": "int8"})
        with pytest.raises(ValueError, match=f"'int4' for '{path}d', which was trained with 'int8"):
            check(model, {"d": "int4"})
    assert not caplog.records
    check(aware, {"gelu": "float32"})
    assert "inner does not hold the formats that its layers were trained for" in caplog.text
    assert "nothing tells whether gelu has them" in caplog.text


def test_parts_with_and_without_a_record_are_checked_apart(caplog) -> None:
    old = of_an_earlier_release(tfnas.quantize_aware(dense("old", "a"), "int8"))
    spec = tfnas.QuantSpec("int8", layers={"b": "float32"})
    model = within(old, tfnas.quantize_aware(dense("new", "b"), spec))
    check(model, {"a": "int8", "b": "float32", "old/a": "int8", "new/b": "float32"})
    assert not caplog.records
    for layers, rule in (({"a": "int4"}, "'int4' for 'old/a'"), ({"b": "int8"}, "for 'new/b'")):
        with pytest.raises(ValueError, match=rule):
            check(model, layers)


def test_layers_that_were_cut_off_are_not_in_the_model() -> None:
    spec = tfnas.QuantSpec("int8", layers={"b": "float32"})
    aware = tfnas.quantize_aware(dense("whole", "a", "b"), spec, data=X)
    part = keras.Model(aware.input, aware.get_layer("a_range").output, name="part")
    check(part, {"a": "int8"})
    with pytest.raises(ValueError, match=r"got 'b', which matches none of a$"):
        tfnas.to_tflite(part, tfnas.QuantSpec("int8", layers={"b": "float32"}))


def test_errors_do_not_suggest_the_names_that_keras_numbers() -> None:
    x = keras.Input((6,))
    h = keras.layers.Dense(6, name="a")(x)
    model = keras.Model(x, keras.ops.sigmoid(keras.ops.subtract(h, keras.ops.square(h))))
    numbered = model.operations[-1].name
    aware = tfnas.quantize_aware(model, tfnas.QuantSpec("int8", layers={numbered: "float32"}))
    check(aware, {numbered: "float32", "Sigmoid": "float32"})
    with pytest.raises(ValueError, match="got 'lost'") as caught:
        check(aware, {"lost": "float32"})
    assert numbered not in str(caught.value)
    assert "Sigmoid" in str(caught.value)
