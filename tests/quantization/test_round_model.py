"""Rounding of whole models by data, on the files."""

import dataclasses

import keras
import numpy as np
import pytest

import tfnas
from tfnas.quantization.round_model import rounded_model, with_eight_bit_layers
from tfnas.tflite.flatbuffer import read_graph

SECOND_ORDER = tfnas.QuantSpec("int4", "int8", rounding="second_order", eight_bit_share=0.02)


@pytest.fixture(scope="module")
def data():
    """Smooth images: neighboring pixels are alike, as in real ones."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(160, 4, 4, 3)).repeat(3, axis=1).repeat(3, axis=2)
    return (coarse + 0.2 * rng.normal(size=coarse.shape)).astype("float32")


@pytest.fixture(scope="module")
def model(data):
    """Convolutions with and without BatchNormalization, a shortcut, a depthwise one, a Dense."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="first")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    y = layers.Conv2D(16, 3, padding="same", activation="relu", name="inside")(x)
    y = layers.DepthwiseConv2D(3, padding="same", name="each")(y)
    y = layers.Conv2D(16, 1, name="mixed")(y)
    x = layers.ReLU()(layers.Add()([x, y]))
    outputs = layers.Dense(10, name="last")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    tfnas.recalibrate_batchnorm(model, data[:100])
    return model


@pytest.fixture(scope="module")
def files(model, data):
    return {
        rounding: tfnas.to_tflite(
            model, dataclasses.replace(SECOND_ORDER, rounding=rounding), data[:100]
        )
        for rounding in ("nearest", "second_order")
    }


def test_outputs_are_closer_to_the_float_model(model, data, files):
    held = data[100:]
    expected = model.predict(held, verbose=0)
    errors = {r: np.square(file.predict(held) - expected).mean() for r, file in files.items()}
    assert errors["second_order"] < 0.5 * errors["nearest"]


def test_the_file_has_4_bit_weights_with_a_scale_a_channel(files):
    graph = read_graph(files["second_order"].content)
    kernels = [op.inputs[1] for op in graph.operators if "CONV" in op.name]
    assert {kernel.dtype for kernel in kernels} == {"int4"}
    assert [len(kernel.scales) for kernel in kernels] == [16, 16, 16, 16, 10]


def test_each_kernel_is_reported(files):
    rounding = {layer["name"]: layer for layer in files["second_order"].origin["rounding"]}
    assert list(rounding) == ["first", "inside", "each", "mixed", "last"]
    for layer in rounding.values():
        assert layer["error"] < layer["nearest"] or layer["bits"] == 8
    assert rounding["each"]["bits"] == 4  # 3% of these weights


def test_small_layers_keep_8_bits(model):
    wide = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, name="first"),
            keras.layers.DepthwiseConv2D(3, name="each"),
            keras.layers.Conv2D(200, 3),
            keras.layers.Conv2D(200, 1, name="last"),
        ]
    )
    changed = with_eight_bit_layers(wide, SECOND_ORDER)
    assert changed.layers == (("each", "int8"), ("first", "int8"))
    own = dataclasses.replace(SECOND_ORDER, layers={"first": "int4"})
    assert with_eight_bit_layers(wide, own).weight_bits("first", "Conv2D") == 4


def test_the_share_of_8_bit_layers(model):
    sizes = {x.name: x.count_params() for x in model.layers if hasattr(x, "kernel")}
    before: set[str] = set()
    for share in (0.0, 0.1, 0.3, 0.6, 1.0):
        spec = dataclasses.replace(SECOND_ORDER, eight_bit_share=share)
        chosen = {name for name, _ in with_eight_bit_layers(model, spec).layers}
        assert sum(sizes[name] for name in chosen) <= 1.05 * share * sum(sizes.values())
        assert len(chosen) >= len(before)
        before = chosen
    assert before == set(sizes)


def test_a_budget_ends_the_fitting(model, data, caplog):
    quantized, layers = rounded_model(model, SECOND_ORDER, data[:40], budget_seconds=0.0)
    assert [layer.reason for layer in layers] == ["the budget of time was used up"] * 5
    assert "5 of 5 layers rounded to nearest" in caplog.text
    nearest = tfnas.quantize_aware(model, SECOND_ORDER, data=data[:40])
    found = quantized.get_layer("quantized_inside").layer.kernel
    expected = nearest.get_layer("quantized_inside").layer.kernel
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_zeros_stay(model, data):
    pruned = tfnas.prune(model, 0.5)[0]
    quantized, _ = rounded_model(pruned, SECOND_ORDER, data[:40])
    kernels = {layer.name: layer.kernel for layer in pruned.layers if hasattr(layer, "kernel")}
    for name in ("inside", "mixed", "last"):
        rounded = quantized.get_layer(f"quantized_{name}").layer.kernel
        removed = np.asarray(kernels[name]) == 0
        assert removed.any()
        assert not np.asarray(rounded)[removed].any()


def test_shared_values_stay_few(model, data):
    clustered = tfnas.cluster(model, 8, exclude=("first", "each", "last"))[0]
    quantized, layers = rounded_model(clustered, SECOND_ORDER, data[:40])
    reasons = {layer.name: layer.reason for layer in layers}
    for name in ("inside", "mixed"):
        assert reasons.pop(name) == "its channels share few values"
        kernel = quantized.get_layer(f"quantized_{name}").layer.kernel
        assert len(np.unique(kernel)) <= 8
    assert set(reasons.values()) == {""}


def test_integers_do_not_depend_on_the_memory(model, data):
    found = [rounded_model(model, SECOND_ORDER, data[:40], memory=m)[0] for m in (0, 2**40)]
    for one, other in zip(*(each.get_weights() for each in found), strict=True):
        np.testing.assert_array_equal(one, other)


def test_bad_arguments(model, data):
    with pytest.raises(ValueError, match="rounding must be one of nearest, second_order, got 'up'"):
        tfnas.QuantSpec(rounding="up")
    with pytest.raises(ValueError, match="rounding 'second_order' goes with integer activations"):
        tfnas.QuantSpec("int4", "float32", rounding="second_order")
    with pytest.raises(ValueError, match=r"eight_bit_share must be in \[0, 1\], got 1.5"):
        tfnas.QuantSpec("int4", "int8", eight_bit_share=1.5)
    with pytest.raises(ValueError, match="budget_seconds must be a number above 0, got 0"):
        tfnas.to_tflite(model, SECOND_ORDER, data, budget_seconds=0)
    with pytest.raises(ValueError, match="budget_seconds goes with rounding 'second_order', got 9"):
        tfnas.to_tflite(model, "int8x4", data, budget_seconds=9)
    aware = tfnas.quantize_aware(model, "int8x4", data=data[:32])
    with pytest.raises(ValueError, match="rounding must be 'nearest' for a quantization-aware"):
        tfnas.to_tflite(aware, SECOND_ORDER)


def test_a_few_examples_are_enough(model, data):
    """One batch has no other half that could judge a fit."""
    file = tfnas.to_tflite(model, "int8", data[:8], rounding="second_order")
    assert all(layer["error"] < 0.1 for layer in file.origin["rounding"])
